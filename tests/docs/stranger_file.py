"""A reader of whole files written from docs/file.md alone: head, blocks, edits, quantizers, schemas and records.

It imports nothing of the package. What it needs of a user's block it is told: facts, whether it keeps, how it is made.
"""

import zlib
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import accumulate

import numpy as np
import torch
from torch import nn

from tests.docs import stranger
from tests.docs.stranger import Stream, edits, listed
from tests.docs.stranger_blocks import BLOCKS, Bypass
from tests.docs.stranger_forms import dense, integers, plain, schema, streams_of

QUANTIZERS = {"ed34": ("affine", 1, 1, 1), "1df7": ("gradients", 1, 0, 0), "ca79": ("pact", 1, 1, 0),
              "e722": ("sign", 3, 0, 0), "6000": ("unit", 2, 0, 0)}  # fmt: skip
"""Name, facts, floats, integers."""


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
        network = self.network
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
                self.network = put(self.network, before[number], blocks[key][0], facts)
            replaced = list(dict.fromkeys(before[number] for number, *_ in found))
            return (replaced, *edits(stream)) if sections & 2 else (replaced, [], {}, b"")
        removed = listed(stream, 1) if sections & 2 else []
        for number in removed:
            self.network = put(self.network, before[number], Bypass, ())
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


def put(network: nn.Module, path: str, make: Callable[..., nn.Module], facts: tuple[int, ...]) -> nn.Module:
    """Replace the outermost module at a path, wherever it stands, and return the network."""
    before = next(module for at, module in walk(network) if at == path)
    block = make(before, *facts) if getattr(make, "keeps", False) else make(*facts)
    if before is network:
        return block
    inside = {id(module) for module in block.modules()}
    for parent in [module for _, module in walk(network) if id(module) not in inside]:
        for name, child in parent._modules.items():
            if child is before:
                parent._modules[name] = block
    return network


def whole_numbers(module: nn.Module) -> list[tuple[str, int | None, int]]:
    """(attribute, place, value) of a module's whole numbers, as the page orders them."""
    found = []
    for name, value in sorted(vars(module).items()):
        if type(value) is int:
            found.append((name, None, value))
        elif type(value) in (list, tuple) and all(type(part) is int for part in value):
            found += [(name, place, part) for place, part in enumerate(value)]
    return found
