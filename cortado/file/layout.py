"""Layout: an original network with the blocks of a compressed one in their places, and the tensors that a file has of it."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from cortado.errors import BadFile, BadNetwork
from cortado.file.entries import Entry, entries_of, loose_entries, value_at
from cortado.file.placed import Description, Placed
from cortado.parts.blocks.block import INNER, Block, numbered, stand_in
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.part import Part

DAMAGED = "The file is damaged."
DEEPEST = 8
"""Blocks at one path, one around the other."""


@dataclass(frozen=True)
class Layout:
    """A network with its blocks, what its modules are called by number, and its tensors.

    `entries` are saved by every network like it, in the order of their records; `loose` are buffers that it does not save.
    `replaced` are the paths where blocks stand; `had_tensors` is whether the network had any before them.
    """

    network: nn.Module
    paths: tuple[str, ...]
    entries: tuple[Entry, ...]
    loose: tuple[Entry, ...]
    replaced: tuple[str, ...] = ()
    had_tensors: bool = False

    def module(self, number: int) -> nn.Module | None:
        """Return the module of a number; None if there is none, or if it was replaced or was inside a replaced one."""
        return self.modules.get(self.paths[number]) if number < len(self.paths) else None

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """Return the modules by path; where a block keeps a module, the module it keeps."""
        return dict(self.network.named_modules())

    def stored(self, loose: Sequence[int]) -> list[Entry]:
        """Return what a file has records for: the saved tensors, and these buffers.  Raises BadFile when there are none."""
        left = remaining(self.entries, self.network)
        if self.had_tensors and not left:
            raise BadFile(f"file: {', '.join(self.replaced)} is removed and had all tensors of the network. {DAMAGED}")
        return left + remaining([self.loose[number] for number in loose], self.network)


def remaining(entries: Sequence[Entry], network: nn.Module) -> list[Entry]:
    """Return the entries that have a place in a network, with those places."""
    modules = dict(network.named_modules())
    here = [
        replace(
            one,
            places=tuple((path, name) for path, name in one.places if value_at(modules.get(path), name) is not None),
        )
        for one in entries
    ]
    return [one for one in here if one.places]


def without_values(original: nn.Module) -> nn.Module:
    """Return a copy whose entries are still those of the network itself, to be replaced one and all."""
    modules = dict(original.named_modules())
    tensors = [value_at(modules[path], name) for path, name in (one.places[0] for one in entries_of(original))]
    return copy.deepcopy(original, {id(value): value for value in tensors})


def laid_out(network: nn.Module, blocks: Placed, former: bool = False) -> Layout:
    """Put blocks into a network, in place, and return its layout.  Raises BadFile for blocks that do not fit.

    `former`: modules and tensors are numbered as in the network without blocks, as files before version 4 do.
    """
    before = numbered(network)
    named = (tuple(path for path, _ in before), entries_of(network), loose_entries(network))
    had_tensors = bool(named[1])
    network, replaced = put_blocks(network, before, blocks)
    if not former:
        named = (tuple(path for path, _ in numbered(network)), entries_of(network), loose_entries(network))
    return Layout(network, named[0], tuple(named[1]), tuple(named[2]), tuple(replaced), had_tensors)


def put_blocks(network: nn.Module, order: list[tuple[str, nn.Module]], blocks: Placed) -> tuple[nn.Module, list[str]]:
    """Put blocks into a network whose modules are numbered by `order`; return it and their paths.  Raises BadFile.

    What stands around the whole network, module 0, comes first; then the others, which it lets through by their paths.
    """
    room = 4 * sum(value.numel() for value in network.parameters()) + 2**20
    depths: dict[str, int] = {}
    gone: set[str] = set()
    for (number, _), which in zip(blocks.places, blocks.serves, strict=True):
        if not 0 <= number < len(order):
            raise BadFile(f"file: a block stands in the place of module {number} of {len(order)}. {DAMAGED}")
        path, description = order[number][0], blocks.parts[which]
        before = standing_at(network, path, gone)
        depths[path] = depths.get(path, 0) + 1
        if depths[path] > DEEPEST or depths[path] > 1 and not keeps(description):
            raise BadFile(f"file: block {depths[path]} of those at {path} cannot stand around the others. {DAMAGED}")
        if issubclass(description.kind, Bypass) and type(before) in (nn.Identity, Bypass):
            raise BadFile(f"file: {path} is to be removed and is not there. {DAMAGED}")
        room -= claimed(description, before)
        if room < 0:
            raise BadFile(f"file: its blocks claim more entries than fit such a network. {DAMAGED}")
        try:
            network = stand_in(network, before, built(description, before))
        except BadNetwork as error:
            raise BadFile(f"file: {error} {DAMAGED}") from error
        gone |= set() if keeps(description) else {path}
    return network, list(depths)


def standing_at(network: nn.Module, path: str, gone: set[str]) -> nn.Module:
    """Return what stands at a path, outermost block included.  Raises BadFile if it was inside a module that is gone."""
    steps = path.split(".")
    try:
        if any(".".join(steps[:count]) in gone for count in range(1, len(steps))):
            raise AttributeError
        return network.get_submodule(path)
    except AttributeError as error:
        raise BadFile(f"file: {path} is to be replaced and is not there. {DAMAGED}") from error


def keeps(description: Description) -> bool:
    """Return whether a block keeps the module that stood in its place."""
    return INNER in description.kind.arrays


def claimed(description: Description, before: nn.Module) -> int:
    """Return how many entries a block's own tensors have, without making them."""
    with torch.device("meta"):
        sketch = description.made(**{INNER: before} if keeps(description) else {})
    inside = {id(value) for value in tensors_of(before)}
    return sum(math.prod(value.shape) for value in tensors_of(sketch) if id(value) not in inside)


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """Return the parameters and buffers of a module."""
    return [*module.parameters(), *module.buffers()]


def built(description: Description, before: nn.Module) -> Block:
    """Return the block, its tensors in their shapes."""
    with torch.random.fork_rng(devices=()):
        made: Part = description.made(**{INNER: before} if keeps(description) else {})
    assert isinstance(made, Block)
    return made.train(before.training)
