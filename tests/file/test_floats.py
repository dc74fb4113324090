"""Floats come back bit by bit, and take fewer bytes when they can."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortado.errors import BadFile, BadValue
from cortado.file.floats import decode_floats, encode_floats

KINDS = [np.float16, np.float32, np.float64, np.uint16]


@pytest.mark.parametrize("kind", KINDS)
@given(body=st.binary(max_size=400))
@settings(deadline=None, max_examples=40)
def test_any_bit_pattern_comes_back(kind: type, body: bytes) -> None:
    size = np.dtype(kind).itemsize
    array = np.frombuffer(body[: len(body) // size * size], dtype=kind)
    coded = encode_floats(array)
    assert decode_floats(coded, kind, array.size).tobytes() == array.tobytes()
    assert len(coded) <= array.nbytes


def test_nan_payloads_and_negative_zero_survive() -> None:
    patterns = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x7F800000, 1], dtype=np.uint32)
    array = np.resize(patterns, 5000).view(np.float32)
    back = decode_floats(encode_floats(array), np.float32, 5000)
    assert (back.view(np.uint32) == array.view(np.uint32)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_takes_one_item(kind: type) -> None:
    assert len(encode_floats(np.full((30, 30), 3, dtype=kind))) == np.dtype(kind).itemsize


def test_gaussian_weights_shrink_to_their_exponents() -> None:
    weights = np.random.default_rng(0).normal(0, 0.05, 20_000)
    assert len(encode_floats(weights.astype(np.float32))) < 0.85 * 4 * weights.size
    brain = (weights.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    assert len(encode_floats(brain)) < 0.70 * 2 * weights.size
    held_in_halves = weights.astype(np.float16).astype(np.float32)
    assert len(encode_floats(held_in_halves)) < 0.46 * 4 * weights.size


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_damage_is_refused_or_gives_floats(seed: int) -> None:
    generator = np.random.default_rng(seed)
    array = generator.normal(size=300).astype(np.float32)
    body = bytearray(encode_floats(array))
    body[generator.integers(len(body))] ^= 1 << generator.integers(8)
    try:
        back = decode_floats(bytes(body[: generator.integers(len(body) + 1)]), np.float32, 300)
    except BadFile as error:
        assert len(str(error)) > 20
    else:
        assert back.shape == (300,)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(BadValue, match="dtype"):
        encode_floats(np.zeros(3, dtype=np.int32))
