"""A reader of schemas and of the values of records, written from docs/file.md alone."""

from math import prod

import numpy as np
import torch

from tests.docs import stranger
from tests.docs.stranger import Stream
from tests.docs.stranger_mix import mix, states

DTYPES = {0: np.float32, 1: np.float16, 3: np.float64}
FORMS = {
    "1e6e": ("dense", 0, "f"), "1912": ("masked", 0, "mp"), "ce7c": ("maskedlatent", 0, "mp"),
    "054a": ("codebook", 1, "fi"), "d9c6": ("quantized", 3, "iif"), "af49": ("learnedstep", 2, "ff"),
    "6378": ("productquantized", 2, "fi"), "0909": ("lowrank", 5, "pp"),
    "effc": ("transferred", 4, "iip"), "a2d4": ("trellis", 3, "if"),
}  # fmt: skip


def integers(stream: Stream, shape: tuple[int, ...], where: list[int] | None = None) -> list[int]:
    """A stream with its length and codec before it, as a plane of this shape."""
    head = stream.number()
    body, codec, size = stream.take(head // 8), head % 8, prod(shape)
    if codec == 3:
        return mix(body, shape, where)
    if codec == 5:
        return states(body, shape, where)
    count = size if where is None else sum(where)
    line = prod(shape[1:]) if len(shape) > 1 and where is None else 1
    readers = {0: stranger.bits, 1: stranger.huffman, 4: stranger.deep_compression}
    values = iter(stranger.rans(body, count, line) if codec == 2 else readers[codec](body, count))
    return [next(values) if where is None or where[at] else 0 for at in range(size)]


def schema(stream: Stream) -> tuple:
    """Name, facts, float types, schemas inside."""
    name, facts, arrays = FORMS[stream.take(2).hex()]
    spec = tuple(stream.signed() for _ in range(facts))
    types = tuple(stream.number() for _ in range(arrays.count("f")))
    return name, spec, types, tuple(schema(stream) for _ in range(arrays.count("p")))


def floats(stream: Stream, dtype: type, count: int) -> np.ndarray:
    head = stream.number()
    assert head % 8 == 7
    return np.frombuffer(stranger.floats(stream.take(head // 8), np.dtype(dtype).itemsize, count), dtype)


def dense(stream: Stream, one: tuple, shape: tuple[int, ...], where: list[int] | None = None) -> np.ndarray:
    """The values of a form, one after another; inside a mask those of the places in `where`."""
    name, facts, types, inner = one
    kinds = [DTYPES[number] for number in types]
    count, rows = prod(shape) if where is None else sum(where), shape[0] if where is None and shape else 1

    def codes() -> np.ndarray:
        whole = integers(stream, shape, where)
        return np.array([value for at, value in enumerate(whole) if where is None or where[at]], dtype=np.int64)

    if name == "dense":
        return floats(stream, kinds[0], count)
    if name in ("masked", "maskedlatent"):
        mask = codes()
        assert set(mask.tolist()) <= {0, 1}
        if name == "maskedlatent":
            return np.where(mask, dense(stream, inner[0], shape, where), np.float32(0))
        places = iter(mask.tolist())
        kept = [next(places) if where is None or where[at] else 0 for at in range(prod(shape))]
        values = dense(stream, inner[0], shape, kept)
        found = np.zeros(count, values.dtype)
        found[mask.astype(bool)] = values
        return found
    if name == "codebook":
        book = floats(stream, kinds[0], facts[0])
        return book[codes() + int((book < 0).sum())]
    if name == "trellis":
        number, segment, layout = facts
        levels, state, feedback = codes(), 0, {4: 2, 8: 6, 16: 12, 32: 23}[number]
        for at, code in enumerate(levels.tolist()):
            state = 0 if at % segment == 0 else state
            grid = state & 1
            levels[at] = 2 * code - grid * ((code > 0) - (code < 0))
            state = (state >> 1) ^ (feedback if grid else 0) ^ (code & 1)
        scale = floats(stream, kinds[0], rows if layout else 1)
        return levels.astype(kinds[0]) * scale.repeat(count // len(scale))
    if name == "quantized":
        layout, group, symmetric = facts
        row = count // rows
        per = {0: 1, 1: rows, 2: rows * -(-row // group) if group else 0}[layout]
        integers(stream, (0 if symmetric else per,))
        whole, scale = codes(), floats(stream, kinds[0], per)
        at = np.arange(count)
        which = {0: at * 0, 1: at // row, 2: at // row * -(-row // max(group, 1)) + at % row // max(group, 1)}[layout]
        return whole.astype(scale.dtype) * scale[which]
    if name == "learnedstep":
        layout, width = facts
        values, step = floats(stream, kinds[0], count), floats(stream, kinds[1], rows if facts[0] else 1)
        s = np.maximum(np.abs(step), np.float32(1e-6))[
            np.arange(count) // (count // rows) if layout else np.zeros(count, int)
        ]
        whole = np.round(values / s)
        return (whole.clip(-(2 ** (width - 1)), 2 ** (width - 1) - 1) if width else whole) * s
    if name == "productquantized":
        values, width = facts
        row = count // rows
        parts = -(-row // width)
        books = floats(stream, kinds[0], parts * values * width).reshape(parts, values, width)
        which = np.array(integers(stream, (rows * parts,))).reshape(rows, parts)
        return np.stack([books[np.arange(parts), which[i]].reshape(-1)[:row] for i in range(rows)]).reshape(-1)
    if name == "transferred":
        return transferred(stream, one, shape)
    rank, axes, groups, first_groups, last_groups = facts
    n, c, *kernel = shape
    first = (rank, c * groups // first_groups, *(k if axes >> a & 1 else 1 for a, k in enumerate(kernel)))
    last = (n, rank // last_groups, *(1 if axes >> a & 1 else k for a, k in enumerate(kernel)))
    made = [dense(stream, part, size).reshape(size) for part, size in zip(inner, (first, last), strict=True)]
    assert groups == first_groups == last_groups == 1, "this reader knows no groups"
    return np.einsum("rcxy,nrab->ncxayb", *made).reshape(shape).reshape(-1)


def transferred(stream: Stream, one: tuple, shape: tuple[int, ...]) -> np.ndarray:
    """Filters made from fewer, one row after another."""
    (transform, slots, rows, channels), inner = one[1], one[3]
    n, c = shape[0], shape[1] if len(shape) > 1 else 0
    codes = np.array(integers(stream, (n,))) + np.arange(n)
    inputs = np.array(integers(stream, (c,)), int) + np.arange(c)
    m = round(slots**0.5) if transform == 4 else 1
    wide = () if len(shape) == 1 else (channels * (4 if transform == 3 else 1),)
    size = (rows, *wide, *(k + m - 1 for k in shape[2:]))
    base, made = dense(stream, inner[0], size).reshape(size), []
    for code in codes:
        s, row = code % slots, base[code // slots]
        if transform == 1 and s:
            row = -row
        if transform in (2, 3):
            row = np.rot90(row, s, (1, 2))
        if transform == 4:
            row = row[:, s // m : s // m + shape[2], s % m : s % m + shape[3]]
        made.append(row if len(shape) == 1 else row[inputs // 4 * 4 + (inputs - s) % 4 if transform == 3 else inputs])
    return np.stack(made).reshape(-1)


def plain(stream: Stream, shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    """A plain tensor."""
    kind = torch.zeros(0, dtype=dtype).numpy().dtype
    if dtype.is_floating_point:
        return floats(stream, kind.type, prod(shape))
    at = stream.at
    head = stream.number()
    if head % 8 == 6:
        return np.frombuffer(stream.take(head // 8), kind)
    stream.at = at
    return np.array(integers(stream, (prod(shape),)), dtype=kind)


def streams_of(one: tuple | None) -> int:
    """How many streams a record has."""
    if one is None:
        return 1
    arrays = next(arrays for name, _, arrays in FORMS.values() if name == one[0])
    return len(arrays) - arrays.count("p") + sum(map(streams_of, one[3]))
