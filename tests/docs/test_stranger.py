"""What the coders write is read by a reader that was written from docs/file.md alone."""

import math
from hashlib import blake2b

import numpy as np
import pytest

from cortado.file import mix as mix_coder
from cortado.file.artifact import encode
from cortado.file.floats import encode_floats
from cortado.file.plane import encode_plane
from cortado.native.coders import mix_encode
from cortado.parts.activations.quantizer import sites
from tests.docs import stranger
from tests.docs.stranger_mix import mix
from tests.file.cut_nets import cut_net, plain_net, without_blocks
from tests.file.test_roundings import rounded


def planes() -> dict[str, np.ndarray]:
    """Small planes of the sorts that forms have."""
    draw = np.random.default_rng(0)
    sparse = (np.rint(draw.laplace(scale=2.0, size=(12, 5, 3, 3))) * (draw.random((12, 5, 3, 3)) < 0.3)).astype(
        np.int32
    )
    return {
        "kernels": sparse,
        "mask": (draw.random((20, 24)) < 0.2).astype(np.int32),
        "matrix": np.rint(draw.normal(scale=40, size=(9, 32))).astype(np.int32),
        "shifted": draw.integers(100, 180, (7, 8)).astype(np.int32),
        "list": np.rint(draw.laplace(scale=300, size=90)).astype(np.int32),
        "constant": np.full((3, 4), -7, dtype=np.int32),
        "wide": draw.integers(-(2**31), 2**31, 12).astype(np.int32),
        "zeros": np.zeros((2, 3), dtype=np.int32),
    }


PLANES = planes()
LINE = {name: math.prod(plane.shape[1:]) for name, plane in PLANES.items()}


@pytest.mark.parametrize("name", PLANES)
def test_list_codecs_are_read_by_the_page(name: str) -> None:
    plane = PLANES[name]
    wanted, count = plane.ravel().tolist(), plane.size
    assert stranger.bits(encode_plane(plane, None, "bits").body, count) == wanted
    assert stranger.huffman(encode_plane(plane, None, "huffman").body, count) == wanted
    assert stranger.deep_compression(encode_plane(plane, None, "deep_compression").body, count) == wanted
    assert stranger.rans(encode_plane(plane, None, "rans").body, count, LINE[name]) == wanted


def test_four_streams_are_read_by_the_page() -> None:
    plane = np.rint(np.random.default_rng(1).laplace(scale=9, size=(131, 126))).astype(np.int32)
    assert plane.size > 16384
    assert stranger.rans(encode_plane(plane, None, "rans").body, plane.size, 126) == plane.ravel().tolist()


@pytest.mark.parametrize("name", PLANES)
def test_mix_is_read_by_the_page(name: str) -> None:
    plane = PLANES[name]
    assert mix(encode_plane(plane, None, "mix").body, plane.shape, None) == plane.ravel().tolist()


@pytest.mark.parametrize("name", ["kernels", "matrix", "shifted"])
def test_mix_inside_a_mask_is_read_by_the_page(name: str) -> None:
    plane = PLANES[name]
    where = np.random.default_rng(2).random(plane.shape) < 0.4
    body = encode_plane(plane, where, "mix").body
    assert mix(body, plane.shape, where.ravel().astype(int).tolist()) == np.where(where, plane, 0).ravel().tolist()


def test_mix_with_a_stride_is_read_by_the_page() -> None:
    draw = np.random.default_rng(3)
    busy = np.where(np.arange(60) % 6 < 2, 0.8, 0.02)
    plane = ((draw.random((14, 60)) < busy) * draw.integers(-3, 4, (14, 60))).astype(np.int32)
    plan = mix_coder.make_plan(plane.shape, (2, 1, 1), stride=6, preset=2, density=3)
    body = mix_coder.header(plan, 2, 0) + mix_encode(plane, None, plan)
    assert mix(body, plane.shape, None) == plane.ravel().tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_read_by_the_page(dtype: type) -> None:
    draw = np.random.default_rng(4)
    size = np.dtype(dtype).itemsize
    rounded = (draw.normal(size=60).astype(dtype) * dtype(16)).round() / dtype(16)
    for values in (rounded, draw.normal(size=50).astype(dtype), np.full(5, 0.75, dtype), np.zeros(0, dtype)):
        assert stranger.floats(encode_floats(values), size, len(values)) == values.tobytes()


def whole_numbers(module) -> list[tuple[str, int | None, int]]:
    """(attribute, place, value) of a module's whole numbers, as the page orders them."""
    found = []
    for name, value in sorted(vars(module).items()):
        if type(value) is int:
            found.append((name, None, value))
        elif type(value) in (list, tuple) and all(type(part) is int for part in value):
            found += [(name, place, part) for place, part in enumerate(value)]
    return found


@pytest.mark.parametrize("name", ["attention", "option_a", "split"])
def test_edits_are_read_by_the_page(name: str) -> None:
    original, small = plain_net(name), cut_net(name, 0.25)
    body = encode(small, original)
    assert body[4] == 2
    removed, buffers, values, check = stranger.edits(stranger.Stream(body[13:]))
    assert removed == [] and buffers == ([0] if name == "attention" else []) and values
    order, text = list(original.named_modules()), ""
    for number in buffers:
        text += repr(((("", "places"),), (5, 16), "torch.float32"))
        assert number == 0
    for (module, rank), value in values.items():
        path, layer = order[module]
        attribute, place, before = whole_numbers(layer)[rank]
        now = vars(small.get_submodule(path))[attribute]
        assert (now if place is None else now[place]) == value != before
        text += repr((path, attribute, place, before))
    assert check == blake2b(text.encode(), digest_size=2).digest()


def test_removed_modules_are_read_by_the_page() -> None:
    original, paths = plain_net("residual"), ["layer1.1", "layer3.1"]
    body = encode(without_blocks("residual", *paths), original)
    removed, buffers, values, check = stranger.edits(stranger.Stream(body[13:]))
    assert [list(original.named_modules())[number][0] for number in removed] == paths
    assert not buffers and not values
    assert check == blake2b("".join(map(repr, paths)).encode(), digest_size=2).digest()


def listed_numbers(stream: stranger.Stream, count: int) -> list[int]:
    """A stream of whole numbers with its length and codec before it."""
    head = stream.number()
    body = stream.take(head // 8)
    readers = {0: stranger.bits, 1: stranger.huffman, 4: stranger.deep_compression}
    if head % 8 == 2:
        return stranger.rans(body, count, 1)
    return mix(body, (count,), None) if head % 8 == 3 else readers[head % 8](body, count)


def test_roundings_are_read_by_the_page() -> None:
    original = plain_net("residual")
    small = rounded(original)
    body = encode(small, original)
    assert body[4] == 3
    stream = stranger.Stream(body[13:])
    assert [stream.number() for _ in range(3)] == [0, 0, 0], "no edits, and no check of them"
    count, distinct, kinds = (stream.number() for _ in range(3))
    steps, serves = listed_numbers(stream, count), listed_numbers(stream, count)
    heads = [(stream.take(2), stream.number()) for _ in range(kinds)]
    which = listed_numbers(stream, distinct)
    made: dict[int, tuple[int, float, int]] = {}
    for number, (key, bits) in enumerate(heads):
        assert key == blake2b(b"affine", digest_size=2).digest()
        mine = [place for place, kind in enumerate(which) if kind == number]
        scales = np.frombuffer(stranger.floats(stream.take(stream.number()), 4, len(mine)), dtype=np.float32)
        zeros = listed_numbers(stream, len(mine))
        made |= {one: (bits, float(s), z) for one, s, z in zip(mine, scales, zeros, strict=True)}
    order = [path for path, _ in original.named_modules()]
    places = np.cumsum(steps)
    found = {(order[p // 2], ("input", "output")[p % 2]): made[s] for p, s in zip(places, serves, strict=True)}
    wanted = {
        place: (activation.width, activation.parts()["scale"].item(), int(activation.zero))
        for place, activation in sites(small).items()
    }
    assert found == wanted
