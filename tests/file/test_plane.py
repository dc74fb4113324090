"""Planes to bytes and back: every coder, every shape, every mask; and damage."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortado.errors import BadFile, BadValue
from cortado.file.plane import CODECS, Coded, decode_plane, encode_plane

SOME = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def plane_and_mask(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray | None]:
    """A plane of up to four axes, perhaps empty, constant, positive or without zeros, and perhaps a mask."""
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=4)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["codes", "mask", "constant", "ranks", "wide", "two"]))
    values = {
        "codes": lambda: np.rint(generator.laplace(scale=2, size=shape)),
        "mask": lambda: generator.integers(0, 2, shape),
        "constant": lambda: np.full(shape, generator.integers(-4, 5)),
        "ranks": lambda: generator.integers(100, 200, shape),
        "wide": lambda: generator.integers(-(2**31), 2**31, shape),
        "two": lambda: generator.choice([-(2**31), 2**31 - 1], shape),
    }[kind]()
    mask = generator.random(shape) < 0.5 if draw(st.booleans()) else None
    return values.astype(np.int64), mask


@pytest.mark.parametrize("codec", [*CODECS, "smallest"])
@given(case=plane_and_mask())
@SOME
def test_decode_plane_inverts_encode_plane(codec: str, case: tuple[np.ndarray, np.ndarray | None]) -> None:
    values, mask = case
    back = decode_plane(encode_plane(values, mask, codec), values.shape, mask)
    assert back.dtype == np.int32
    assert back.shape == values.shape
    assert (back == (values if mask is None else np.where(mask, values, 0))).all()


@pytest.mark.parametrize("codec", CODECS)
@given(case=plane_and_mask(), seed=st.integers(0, 2**32))
@SOME
def test_damaged_plane_is_refused_or_decoded(codec: str, case: tuple[np.ndarray, np.ndarray | None], seed: int) -> None:
    values, mask = case
    body, generator = encode_plane(values, mask, codec).body, np.random.default_rng(seed)
    for _ in range(20):
        noise = bytearray(body or bytes(8))
        for place in generator.integers(0, len(noise), size=2):
            noise[place] = generator.integers(0, 256)
        damaged = bytes(noise)[: generator.integers(0, len(noise) + 1)] + bytes(generator.integers(0, 3))
        try:
            back = decode_plane(Coded(CODECS[codec], damaged), values.shape, mask)
        except BadFile as error:
            assert len(str(error)) > 20
        else:
            assert back.shape == values.shape


@pytest.mark.parametrize("codec", CODECS)
def test_decode_plane_refuses_trailing_bytes(codec: str) -> None:
    values = np.arange(-20, 20).reshape(4, 10)
    body = encode_plane(values, codec=codec).body
    with pytest.raises(BadFile):
        decode_plane(Coded(CODECS[codec], body + bytes(30)), values.shape)


def test_decode_plane_refuses_an_unknown_codec() -> None:
    with pytest.raises(BadFile, match="unknown"):
        decode_plane(Coded(77, b""), (2,))


def test_smallest_is_never_larger_than_any_coder() -> None:
    generator = np.random.default_rng(0)
    kernels = np.rint(generator.laplace(scale=3, size=(9, 8, 3, 3))).astype(int)
    for values in (generator.integers(0, 2, (30, 40)), kernels):
        sizes = [len(encode_plane(values, codec=codec).body) for codec in ("bits", "huffman", "rans", "mix")]
        assert len(encode_plane(values).body) == min(sizes)


@pytest.mark.parametrize(
    ("values", "most"),
    [
        (np.zeros(10), 0),
        (np.zeros((300, 784)), 0),
        (np.ones((300, 784)), 3),
        (np.array([3, -1, 2, 0, 5, -3, 2, 1, 0, 7]), 8),
    ],
)
def test_tiny_contents_take_few_bytes(values: np.ndarray, most: int) -> None:
    assert len(encode_plane(values.astype(np.int64)).body) <= most


def test_mix_finds_structure_that_single_counts_miss() -> None:
    generator = np.random.default_rng(0)
    rows, columns = generator.random((200, 1)) ** 4, generator.random((1, 300)) ** 4
    mask = (generator.random((200, 300)) < rows * columns).astype(np.int64)
    share = mask.mean()
    alone = -mask.size * (share * np.log2(share) + (1 - share) * np.log2(1 - share)) / 8
    chance = np.clip(rows * columns, 1e-9, 1 - 1e-9)
    known = -(np.log2(np.where(mask == 1, chance, 1 - chance))).sum() / 8  # what knowing the true chances would give
    size = len(encode_plane(mask, codec="mix").body)
    assert size < 0.7 * alone
    assert size < 1.25 * known


def test_values_beside_a_mask_cost_nothing_for_the_mask() -> None:
    generator = np.random.default_rng(0)
    mask = generator.random((100, 200)) < 0.1
    values = np.where(mask, generator.choice([-1, 1], mask.shape), 0)
    size = len(encode_plane(values, mask).body)
    assert size < mask.sum() / 8 + 30  # a sign each


def test_encode_plane_refuses_floats_and_other_shapes() -> None:
    with pytest.raises(BadValue, match="integers"):
        encode_plane(np.ones(3))
    with pytest.raises(BadValue, match="32 bits"):
        encode_plane(np.array([2**40]))
    with pytest.raises(BadValue, match="shape"):
        encode_plane(np.ones(3, dtype=int), np.ones(4, dtype=bool))
    with pytest.raises(BadValue, match="codec"):
        encode_plane(np.ones(3, dtype=int), codec="zip")
