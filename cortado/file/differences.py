"""Differences: which edits turn an original network into a compressed one, besides its tensors."""

import copy
from dataclasses import replace

import torch
from torch import Size, nn

from cortado.errors import BadNetwork
from cortado.file.edits import Edits, check_of
from cortado.file.entries import Entry, entries_of, is_removed, loose_entries, remaining_entries, value_at
from cortado.file.slots import impossible_size, largest_axis, slots_of, value_in
from cortado.layers.bypass import Bypass
from cortado.layers.cut_numbers import set_by_cut
from cortado.layers.widths import match_widths


def edits_of(network: nn.Module, original: nn.Module, removed: list[str]) -> Edits:
    """What is to be written besides saved tensors.  Raises BadNetwork for what a file cannot say."""
    modules, changed, loose = dict(network.named_modules()), {}, []
    for number, entry in enumerate(loose_entries(original)):
        if any(resized(modules, one) is not None for one in remaining_entries([entry], removed)):
            loose.append(number)
    entries = entries_of(original)
    if entries and not remaining_entries(entries, removed):
        raise BadNetwork(
            f"file: {', '.join(removed)} is removed and had all tensors of the network. Leave a layer that has some."
        )
    for entry in remaining_entries([*entries, *loose_entries(original)], removed):
        shape = resized(modules, entry)
        if shape is not None:
            changed[entry] = shape
    order = {path: number for number, (path, _) in enumerate(original.named_modules())}
    # A module may stand in several places; its first one stands for all.
    numbers = tuple(order[path] for path in removed if path in order)
    found = changed_numbers(network, original, removed, changed) if changed else ()
    made = Edits(numbers, tuple(loose), found)
    return replace(made, check=check_of(original, made)) if made else made


def resized(modules: dict[str, nn.Module], entry: Entry) -> Size | None:
    """The shape of an entry in a network with these modules, where it is another one of as many axes."""
    path, name = entry.places[0]
    value = value_at(modules.get(path), name)
    same = value is None or value.shape == entry.shape or len(value.shape) != len(entry.shape)
    return None if same or value is None else value.shape


def removed_paths(network: nn.Module, original: nn.Module) -> list[str]:
    """The modules of `original` in whose place `network` has an nn.Identity.  Raises BadNetwork where a file cannot say it."""
    mine, found = dict(network.named_modules(remove_duplicate=False)), list[str]()
    everywhere = list(original.named_modules(remove_duplicate=False))
    for path, layer in everywhere:
        remove_blocks = type(mine.get(path)) in (nn.Identity, Bypass) and type(layer) not in (nn.Identity, Bypass)
        if path and remove_blocks and not is_removed(path, found):
            found.append(path)
    gone = {id(part) for path, layer in everywhere if path in found for part in layer.modules()}
    for path, layer in everywhere:
        if id(layer) in gone and not is_removed(path, found):
            raise BadNetwork(
                f"file: {path} was removed in one place and still stands in another. Put it out everywhere, or not at all."
            )
    return found


def changed_numbers(
    network: nn.Module, original: nn.Module, removed: list[str], changed: dict[Entry, Size]
) -> tuple[tuple[int, int, int], ...]:
    """The whole numbers that a cut made differ from what a reader works out from the shapes."""
    mine, worked_out, largest = dict(network.named_modules()), consumer(original, changed), largest_axis(original)
    found = []
    for number, (path, layer) in enumerate(original.named_modules()):
        if is_removed(path, removed):
            continue
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
