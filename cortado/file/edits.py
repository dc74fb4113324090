"""Edits: what a cut changed besides saved tensors - whole numbers that modules keep (heads, pads), and modules put out.

Modules go by their place in the original network's order, numbers by their rank among those of their module: no name is
spelled. Only what does not follow from the shapes of tensors is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

from torch import nn

from cortado.errors import BadFile, WrongNetwork
from cortado.file.entries import Entry, entries_of, is_removed, loose_entries, remaining_entries
from cortado.file.slots import AttributeSlot, impossible_size, largest_axis, set_value, slots_of, value_in
from cortado.file.wire import Cursor, varint
from cortado.layers.bypass import Bypass

MOST = 2**31
DAMAGED = "The file is damaged."


@dataclass(frozen=True)
class Edits:
    """Numbers of the modules that are put out; of the buffers that are not saved and changed their size; (module, rank,
    size) of each changed whole number; all ascending, and a check."""

    removed: tuple[int, ...] = ()
    loose: tuple[int, ...] = ()
    numbers: tuple[tuple[int, int, int], ...] = ()
    check: bytes = b""
    size_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.removed or self.loose or self.numbers)

    def text(self) -> str:
        """For people: "2 modules removed, 5 numbers of modules"."""
        parts = (
            (self.removed, "modules removed"),
            (self.numbers, "numbers of modules"),
            (self.loose, "buffers not saved"),
        )
        return ", ".join(f"{len(part)} {word}" for part, word in parts if part)


def stored_entries(original: nn.Module, edits: Edits, removed: Sequence[str]) -> list[Entry]:
    """The entries that a file with these edits has records for, in their order.

    Raises BadFile when there are none of a network that has some, or for a buffer that is not there.
    """
    entries, loose = entries_of(original), loose_entries(original)
    left = remaining_entries(entries, removed)
    if entries and not left:
        raise BadFile(f"file: {', '.join(removed)} is removed and had all tensors of the network. {DAMAGED}")
    chosen = remaining_entries([loose[number] for number in edits.loose], removed)
    return left + chosen


def check_of(original: nn.Module, edits: Edits) -> bytes:
    """Two bytes over the names and plain values of what is edited, so that nothing else is."""
    sums, order = blake2b(digest_size=2), list(original.named_modules())
    for number in edits.removed:
        sums.update(repr(order[number][0]).encode())
    loose = loose_entries(original) if edits.loose else []
    for number in edits.loose:
        sums.update(repr((loose[number].places, tuple(loose[number].shape), str(loose[number].dtype))).encode())
    slots = {number: slots_of(order[number][1]) for number, _, _ in edits.numbers}
    for number, rank, _ in edits.numbers:
        (path, layer), slot = order[number], slots[number][rank]
        value = value_in(layer, slot, layer.__dict__[slot.name])
        sums.update(repr((path, slot.name, slot.place, value)).encode())
    return sums.digest()


def write_edits(edits: Edits) -> bytes:
    """Modules put out; buffers not saved; how many modules have new numbers, and for each which and how large; the check."""
    body = ascending(edits.removed, 0) + ascending(edits.loose, -1)
    modules = dict.fromkeys(number for number, _, _ in edits.numbers)
    body, before = body + varint(len(modules)), -1
    for module in modules:
        own = [(rank, size) for number, rank, size in edits.numbers if number == module]
        body, before, last = body + varint(module - before - 1) + varint(len(own)), module, -1
        for rank, size in own:
            body, last = body + varint(rank - last - 1) + varint(size), rank
    return body + edits.check


def ascending(numbers: tuple[int, ...], before: int) -> bytes:
    """How many they are, then for each how many were left out before it; all are larger than `before`."""
    body = varint(len(numbers))
    for number in numbers:
        body, before = body + varint(number - before - 1), number
    return body


def read_ascending(cursor: Cursor, before: int) -> tuple[int, ...]:
    """The inverse of `ascending`."""
    found = []
    for _ in range(cursor.number(cursor.left)):
        before += 1 + cursor.number(MOST)
        found.append(before)
    return tuple(found)


def read_edits(cursor: Cursor, wanted: bool = True) -> Edits:
    """The edits at the cursor.  Raises BadFile when they are `wanted` and there are none, or more than modules."""
    start, module = cursor.at, -1
    removed, loose, numbers = read_ascending(cursor, 0), read_ascending(cursor, -1), []
    for _ in range(cursor.number(cursor.left)):
        module, rank = module + 1 + cursor.number(MOST), -1
        for _ in range(some_count(cursor)):
            rank += 1 + cursor.number(MOST)
            numbers.append((module, rank, cursor.number(MOST)))
    check = cursor.take(2) if removed or loose or numbers else b""
    made = Edits(removed, loose, tuple(numbers), check, cursor.at - start)
    if not made and wanted:
        raise BadFile(f"file: it announces edits and has none. {DAMAGED}")
    return made


def some_count(cursor: Cursor) -> int:
    """A count that is at least 1."""
    count = cursor.number(cursor.left)
    if not count:
        raise BadFile(f"file: a module is listed for new numbers and has none. {DAMAGED}")
    return count


@dataclass(frozen=True)
class Resolved:
    """Edits found in an original network: the paths that are put out, and the numbers to set, after the tensors are in."""

    removed: tuple[str, ...]
    numbers: tuple[tuple[nn.Module, AttributeSlot, int], ...]

    def set_numbers(self) -> None:
        """Set the whole numbers."""
        for layer, slot, value in self.numbers:
            set_value(layer, slot, value)

    def names(self, network: nn.Module) -> list[tuple[str, str]]:
        """Return the path and the name of each attribute that has a number to set."""
        paths = {id(layer): path for path, layer in network.named_modules()}
        return [(paths[id(layer)], slot.name) for layer, slot, _ in self.numbers]


def resolve(edits: Edits, network: nn.Module) -> Resolved:
    """Find what is edited in an original network, changing nothing.  Raises BadFile, and WrongNetwork where the check fails."""
    if not edits:
        return Resolved((), ())
    order, largest = list(network.named_modules()), largest_axis(network)
    last = max((*edits.removed, *(number for number, _, _ in edits.numbers)), default=0)
    if last >= len(order):
        raise BadFile(f"file: it edits module {last} of a network that has {len(order)}. {DAMAGED}")
    removed = [order[number][0] for number in edits.removed]
    # In this order what is inside a module comes right after it.
    for number, (before, path) in zip(edits.removed, pairwise(["", *removed]), strict=True):
        if type(order[number][1]) in (nn.Identity, Bypass) or (before and is_removed(path, [before])):
            raise BadFile(f"file: {path} is to be removed and is not there. {DAMAGED}")
    if any(number >= len(loose_entries(network)) for number in edits.loose[-1:]):
        raise BadFile(f"file: it has buffer {edits.loose[-1]} of those that are not saved. {DAMAGED}")
    numbers, slots = [], {number: slots_of(order[number][1]) for number, _, _ in edits.numbers}
    for number, rank, size in edits.numbers:
        path, layer = order[number]
        if is_removed(path, removed) or rank >= len(slots[number]):
            raise BadFile(f"file: it sets number {rank} of {path or 'the network'}, which has none such. {DAMAGED}")
        slot = slots[number][rank]
        value = value_in(layer, slot, layer.__dict__[slot.name]) or 0
        if impossible_size(layer, value, size, largest):
            raise BadFile(f"file: it sets {path or 'the network'}.{slot.name}, {value}, to {size}. {DAMAGED}")
        numbers.append((layer, slot, -size if value < 0 else size))
    if check_of(network, edits) != edits.check:
        raise WrongNetwork(
            f"file: it was made from another network than this {type(network).__name__}: what it edits is not there. "
            "Pass the network, or the maker, that it was compressed from."
        )
    return Resolved(tuple(removed), tuple(numbers))


def remove_blocks(network: nn.Module, removed: Sequence[str]) -> None:
    """Replace modules, wherever they stand, by what passes its input on."""
    modules = dict(network.named_modules())
    gone = {id(modules[path]) for path in removed}
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in gone:
                parent._modules[name] = Bypass()
