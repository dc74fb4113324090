"""Differences: which edits turn a network's layout into a compressed network, besides its tensors."""

import copy
from dataclasses import replace

import torch
from torch import Size, nn

from cortado.errors import BadNetwork
from cortado.file.edits import Edits, check_of
from cortado.file.entries import Entry, value_at
from cortado.file.layout import Layout
from cortado.file.slots import impossible_size, largest_axis, slots_of, value_in
from cortado.layers.cut_numbers import set_by_cut
from cortado.layers.widths import match_widths


def edits_of(network: nn.Module, layout: Layout) -> Edits:
    """Return what is to be written besides saved tensors.  Raises BadNetwork for what a file cannot say."""
    modules = dict(network.named_modules())
    loose = tuple(number for number, entry in enumerate(layout.loose) if resized(modules, entry) is not None)
    changed = {}
    for entry in (*layout.entries, *layout.loose):
        shape = resized(modules, entry)
        if shape is not None:
            changed[entry] = shape
    made = Edits(loose, changed_numbers(network, layout, changed) if changed else ())
    return replace(made, check=check_of(layout, made))


def resized(modules: dict[str, nn.Module], entry: Entry) -> Size | None:
    """The shape of an entry in a network with these modules, where it is another one of as many axes."""
    path, name = entry.places[0]
    value = value_at(modules.get(path), name)
    same = value is None or value.shape == entry.shape or len(value.shape) != len(entry.shape)
    return None if same or value is None else value.shape


def changed_numbers(network: nn.Module, layout: Layout, changed: dict[Entry, Size]) -> tuple[tuple[int, int, int], ...]:
    """Return the whole numbers that a cut made differ from what a reader works out from the shapes."""
    mine, largest = dict(network.named_modules()), largest_axis(layout.network)
    before_cut, worked_out = dict(layout.network.named_modules()), consumer(layout.network, changed)
    found = []
    for number, path in enumerate(layout.paths):
        layer = before_cut[path]
        for rank, slot in enumerate(slots_of(layer)):
            before = layer.__dict__[slot.name]
            value, original_value = value_in(mine[path], slot, before), value_in(layer, slot, before) or 0
            if value == value_in(worked_out[path], slot, before) or not set_by_cut(mine[path], slot.name):
                continue
            sign = -1 if original_value < 0 else 1
            if value is None or impossible_size(layer, original_value, value * sign, largest):
                raise BadNetwork(
                    f"file: {path or 'the network'}.{slot.name} is {before} in the original network, got "
                    f"{mine[path].__dict__.get(slot.name)!r}. A file can say what follows from a cut, and not this."
                )
            found.append((number, rank, value * sign))
    return tuple(found)


def consumer(original: nn.Module, changed: dict[Entry, Size]) -> dict[str, nn.Module]:
    """The modules of a copy of `original` whose tensors have their new shapes and no values, by path."""
    # Tensors are shared with the copy, not copied; in the copy only those of a new size are exchanged.
    duplicate = copy.deepcopy(original, {id(t): t for t in (*original.parameters(), *original.buffers())})
    modules = dict(duplicate.named_modules())
    for entry, shape in changed.items():
        empty = torch.empty(shape, dtype=entry.dtype, device="meta")
        for path, name in entry.places:
            if entry.learned:
                modules[path]._parameters[name] = nn.Parameter(empty, requires_grad=False)
            else:
                modules[path]._buffers[name] = empty
            match_widths(modules[path])
    return modules
