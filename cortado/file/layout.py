"""Layout: an original network with the blocks of a compressed one in their places, and the tensors that a file has of it."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from cortado.errors import BadFile, BadNetwork
from cortado.file.entries import Entry, entries_of, loose_entries, value_at
from cortado.file.placed import Description, Placed
from cortado.parts.blocks.block import Block, numbered, stand_in
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.part import Part

DAMAGED = "The file is damaged."


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
        modules = dict(self.network.named_modules())
        return modules.get(self.paths[number]) if number < len(self.paths) else None

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
    had_tensors, replaced = bool(named[1]), put_blocks(network, before, blocks)
    if not former:
        named = (tuple(path for path, _ in numbered(network)), entries_of(network), loose_entries(network))
    return Layout(network, named[0], tuple(named[1]), tuple(named[2]), tuple(dict.fromkeys(replaced)), had_tensors)


def put_blocks(network: nn.Module, order: list[tuple[str, nn.Module]], blocks: Placed) -> list[str]:
    """Put blocks into a network whose modules are numbered by `order`, and return their paths.  Raises BadFile."""
    most = 4 * sum(value.numel() for value in network.parameters()) + 2**20
    replaced: list[str] = []
    for (number, _), which in zip(blocks.places, blocks.serves, strict=True):
        if not 0 < number < len(order):
            raise BadFile(f"file: a block stands in the place of module {number} of {len(order)}. {DAMAGED}")
        path, description = order[number][0], blocks.parts[which]
        before = dict(network.named_modules(remove_duplicate=False)).get(path)
        if before is None or any(path.startswith(f"{one}.") for one in gone(network, replaced)):
            raise BadFile(f"file: {path} is to be replaced and is not there. {DAMAGED}")
        if issubclass(description.kind, Bypass) and type(before) in (nn.Identity, Bypass):
            raise BadFile(f"file: {path} is to be removed and is not there. {DAMAGED}")
        outermost = network.get_submodule(path)
        try:
            stand_in(network, outermost, built(description, outermost, most))
        except BadNetwork as error:
            raise BadFile(f"file: {error} {DAMAGED}") from error
        replaced.append(path)
    return replaced


def gone(network: nn.Module, replaced: list[str]) -> list[str]:
    """Return the paths where blocks stand that keep nothing inside."""
    return [path for path in replaced if getattr(network.get_submodule(path), "kept", None) is None]


def built(description: Description, before: nn.Module, most: int) -> Block:
    """Return the block, its tensors in their shapes.  Raises BadFile for one of more than `most` entries."""
    inside = {"inner": before} if "inner" in description.kind.arrays else {}
    with torch.device("meta"):
        sketch = description.made(**{name: nn.Identity() for name in inside})
    own = [value.shape for value in (*sketch.parameters(), *sketch.buffers())]
    if sum(math.prod(shape) for shape in own) > most:
        raise BadFile(f"file: {description.kind.__name__} claims more entries than fit such a network. {DAMAGED}")
    with torch.random.fork_rng(devices=()):
        made: Part = description.made(**inside)
    assert isinstance(made, Block)
    return made.train(before.training)
