"""A reader of whole files written from docs/file.md alone: head, blocks, edits, quantizers, schemas and records.

It imports nothing of the package. What it needs of a user's block it is told: facts, whether it keeps, how it is made.
"""

import zlib
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import accumulate
from math import prod

import numpy as np
import torch
from torch import nn

from tests.docs import stranger
from tests.docs.stranger import Stream, edits, listed
from tests.docs.stranger_mix import mix

DTYPES = {0: np.float32, 1: np.float16, 3: np.float64}
FORMS = {
    "1e6e": ("dense", 0, "f"), "1912": ("masked", 0, "mp"), "ce7c": ("maskedlatent", 0, "mp"),
    "054a": ("codebook", 1, "fi"), "d9c6": ("quantized", 3, "iif"), "af49": ("learnedstep", 2, "ff"),
    "6378": ("productquantized", 2, "fi"), "0909": ("lowrank", 5, "pp"),
}  # fmt: skip
QUANTIZERS = {"ed34": ("affine", 1, 1, 1), "1df7": ("gradients", 1, 0, 0), "ca79": ("pact", 1, 1, 0),
              "e722": ("sign", 3, 0, 0), "6000": ("unit", 2, 0, 0)}  # fmt: skip
"""Name, facts, floats, integers."""


class Bypass(nn.Module):
    """A removed module."""

    keeps = False


class ScaleShift(nn.Module):
    """A folded batch norm."""

    keeps = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))


BLOCKS: dict[str, tuple[Callable[..., nn.Module], int]] = {"9eb9": (Bypass, 0), "6cca": (ScaleShift, 1)}
"""How it is made, and its facts."""


def digest(name: str, size: int = 2) -> bytes:
    return blake2b(name.encode(), digest_size=size).digest()


def walk(module: nn.Module, path: str = "", seen: set[nn.Module] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """The modules in PyTorch's order, with the paths of the page."""
    seen = set() if seen is None else seen
    if module in seen:
        return
    seen.add(module)
    yield path, module
    for name, child in module._modules.items():
        same = name == "inner" and getattr(module, "keeps", False)
        if child is not None:
            yield from walk(child, path if same else f"{path}.{name}".lstrip("."), seen)


def entries(network: nn.Module, saved: bool = True) -> list[tuple[tuple, torch.Tensor]]:
    """Places and tensor of each entry, or of each buffer that is not saved."""
    found: dict[int, tuple[list, torch.Tensor]] = {}
    for path, module in walk(network):
        loose = module._non_persistent_buffers_set
        own = list(module._parameters.items()) if saved else []
        own += [(name, value) for name, value in module._buffers.items() if (name in loose) != saved]
        for name, value in own:
            if value is not None:
                found.setdefault(id(value), ([], value))[0].append((path, name))
    return [(tuple(places), value) for places, value in found.values()]


def said(entry: tuple[tuple, torch.Tensor]) -> str:
    return repr((entry[0], tuple(entry[1].shape), str(entry[1].dtype)))


def fingerprint(network: nn.Module) -> bytes:
    every = entries(network)
    owners = {path for places, _ in every for path, _ in places}
    layers = [f"{path}:{type(module).__qualname__}" for path, module in walk(network) if path in owners]
    return digest("".join([said(one) for one in every] + layers), 8)


def integers(stream: Stream, shape: tuple[int, ...], where: list[int] | None = None) -> list[int]:
    """A stream with its length and codec before it, as a plane of this shape."""
    head = stream.number()
    body, codec, size = stream.take(head // 8), head % 8, prod(shape)
    if codec == 3:
        return mix(body, shape, where)
    count = size if where is None else sum(where)
    line = prod(shape[1:]) if len(shape) > 1 and where is None else 1
    readers = {0: stranger.bits, 1: stranger.huffman, 4: stranger.deep_compression}
    values = iter(stranger.rans(body, count, line) if codec == 2 else readers[codec](body, count))
    return [next(values) if where is None or where[at] else 0 for at in range(size)]


def in_places(
    stream: Stream, kinds: dict[str, tuple]
) -> list[tuple[int, str, tuple[int, ...], tuple[float, ...], int]]:
    """Place, key, facts, numbers, and which part it is, of each place; `kinds`: counts of facts, floats and integers."""
    count, distinct, kind_count = (stream.number() for _ in range(3))
    places, serves = list(accumulate(integers(stream, (count,)))), integers(stream, (count,))
    heads = []
    for _ in range(kind_count):
        key = stream.take(2).hex()
        heads.append((key, tuple(stream.number() for _ in range(kinds[key][0]))))
    which = integers(stream, (distinct,))
    numbers: dict[int, list[float]] = {part: [] for part in range(distinct)}
    for number, (key, _) in enumerate(heads):
        mine = [part for part in range(distinct) if which[part] == number]
        for _ in range(kinds[key][1]):
            body = stranger.floats(stream.take(stream.number()), 4, len(mine))
            for part, value in zip(mine, np.frombuffer(body, np.float32), strict=True):
                numbers[part].append(float(value))
        for _ in range(kinds[key][2]):
            for part, value in zip(mine, integers(stream, (len(mine),)), strict=True):
                numbers[part].append(value)
    return [
        (place, *heads[which[part]], tuple(numbers[part]), part) for place, part in zip(places, serves, strict=True)
    ]


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
    rank, axes, groups, first_groups, last_groups = facts
    n, c, *kernel = shape
    first = (rank, c * groups // first_groups, *(k if axes >> a & 1 else 1 for a, k in enumerate(kernel)))
    last = (n, rank // last_groups, *(1 if axes >> a & 1 else k for a, k in enumerate(kernel)))
    made = [dense(stream, part, size).reshape(size) for part, size in zip(inner, (first, last), strict=True)]
    assert groups == first_groups == last_groups == 1, "this reader knows no groups"
    return np.einsum("rcxy,nrab->ncxayb", *made).reshape(shape).reshape(-1)


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


class File:
    """All that a file says, for the original network, which becomes the network with blocks.

    `whole`: decode the streams too; otherwise tensors have their shapes only, as this reader has no speed.
    """

    def __init__(self, body: bytes, network: nn.Module, blocks: dict[str, tuple[Callable, int]], whole: bool) -> None:
        assert body[:4] == b"CRTD" and zlib.crc32(body[:-4]) == int.from_bytes(body[-4:], "little")
        stream, self.version, self.network = Stream(body[:-4]), body[4], network
        stream.at = 5
        assert stream.take(8) == fingerprint(network)
        before = list(dict(walk(network)))
        former = entries(network), entries(network, saved=False)
        self.replaced, self.loose, self.values, check = self.head(stream, before, BLOCKS | blocks)
        now = {path: module for path, module in walk(network)}  # noqa: C416 - the last of equal paths counts
        every, unsaved = (entries(network), entries(network, saved=False)) if self.version == 4 else former
        self.order = list(now) if self.version == 4 else before
        if check:
            assert check == digest(self.checked(unsaved, now))
        known = {key: tuple(counts) for key, (_, *counts) in QUANTIZERS.items()}
        found = in_places(stream, known) if self.rounds else []
        self.quantizers = {
            (self.order[p // 2], ("input", "output")[p % 2]): (QUANTIZERS[key][0], facts, numbers, part)
            for p, key, facts, numbers, part in found
        }
        schemas = [schema(stream) for _ in range(stream.number())]
        here = {(path, name) for path, module in now.items() for name in (*module._parameters, *module._buffers)}
        left = [(tuple(place for place in places if place in here), value) for places, value in every]
        left += [unsaved[number] for number in self.loose]
        self.tensors: dict[tuple[str, str], np.ndarray] = {}
        for places, value in left:
            if places:
                self.tensors |= dict.fromkeys(places, record(stream, schemas, value, whole))
        assert stream.at == len(body) - 4

    def head(self, stream: Stream, before: list[str], blocks: dict) -> tuple[list[str], list[int], dict, bytes]:
        """Blocks, put in their places, and edits, of any version."""
        sections = stream.number() if self.version == 4 else (0, 0, 2, 6)[self.version]
        assert sections < 8
        self.rounds = sections & 4
        if self.version == 4:
            found = (
                in_places(stream, {key: (count, 0, 0) for key, (_, count) in blocks.items()}) if sections & 1 else []
            )
            for number, key, facts, _, _ in found:
                put(self.network, before[number], blocks[key][0], facts)
            replaced = list(dict.fromkeys(before[number] for number, *_ in found))
            return (replaced, *edits(stream)) if sections & 2 else (replaced, [], {}, b"")
        removed = listed(stream, 1) if sections & 2 else []
        for number in removed:
            put(self.network, before[number], Bypass, ())
        loose, values, check = edits(stream, len(removed)) if sections & 2 else ([], {}, b"")
        return [before[number] for number in removed], loose, values, check

    def checked(self, unsaved: list, now: dict[str, nn.Module]) -> str:
        """What the check is made of."""
        text = "".join(map(repr, self.replaced)) + "".join(said(unsaved[number]) for number in self.loose)
        for module, rank in self.values:
            path = self.order[module]
            text += repr((path, *whole_numbers(now[path])[rank]))
        return text


def record(stream: Stream, schemas: list[tuple], value: torch.Tensor, whole: bool) -> np.ndarray:
    """The tensor that a record gives for an entry."""
    head, shape = stream.number(), list(value.shape)
    if head % 2:
        axes = stream.number()
        for axis in range(len(shape)):
            shape[axis] = stream.number() if axes >> axis & 1 else shape[axis]
    size, chosen = tuple(shape), schemas[head // 2 - 1] if head // 2 else None
    if not whole:
        for _ in range(streams_of(chosen)):
            stream.take(stream.number() // 8)
        return np.broadcast_to(np.float32(0), size)
    one = plain(stream, size, value.dtype) if chosen is None else dense(stream, chosen, size)
    return one.reshape(size)


def streams_of(one: tuple | None) -> int:
    """How many streams a record has."""
    if one is None:
        return 1
    arrays = next(arrays for name, _, arrays in FORMS.values() if name == one[0])
    return len(arrays) - arrays.count("p") + sum(map(streams_of, one[3]))


def put(network: nn.Module, path: str, make: Callable[..., nn.Module], facts: tuple[int, ...]) -> None:
    """Replace the outermost module at a path, wherever it stands."""
    before = next(module for at, module in walk(network) if at == path)
    block = make(before, *facts) if getattr(make, "keeps", False) else make(*facts)
    inside = {id(module) for module in block.modules()}
    for parent in [module for _, module in walk(network) if id(module) not in inside]:
        for name, child in parent._modules.items():
            if child is before:
                parent._modules[name] = block


def whole_numbers(module: nn.Module) -> list[tuple[str, int | None, int]]:
    """(attribute, place, value) of a module's whole numbers, as the page orders them."""
    found = []
    for name, value in sorted(vars(module).items()):
        if type(value) is int:
            found.append((name, None, value))
        elif type(value) in (list, tuple) and all(type(part) is int for part in value):
            found += [(name, place, part) for place, part in enumerate(value)]
    return found
