"""Edits: what a cut changed besides saved tensors - whole numbers that modules keep (heads, pads), and buffers not saved.

Modules go by their place in the network's order, numbers by their rank among those of their module: no name is spelled.
Only what does not follow from the shapes of tensors is kept.
"""

from dataclasses import dataclass
from hashlib import blake2b

from torch import nn

from cortado.errors import BadFile, WrongNetwork
from cortado.file.layout import Layout
from cortado.file.slots import AttributeSlot, impossible_size, largest_axis, set_value, slots_of, value_in
from cortado.file.wire import Cursor, varint

MOST = 2**31
DAMAGED = "The file is damaged."


@dataclass(frozen=True)
class Edits:
    """Numbers of the buffers that are not saved and changed their size; (module, rank, size) of each changed whole number;
    all ascending; and a check, which covers the places of blocks too."""

    loose: tuple[int, ...] = ()
    numbers: tuple[tuple[int, int, int], ...] = ()
    check: bytes = b""
    size_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.loose or self.numbers)

    def text(self) -> str:
        """For people: "5 numbers of modules, 1 buffers not saved"."""
        parts = ((self.numbers, "numbers of modules"), (self.loose, "buffers not saved"))
        return ", ".join(f"{len(part)} {word}" for part, word in parts if part)


def check_of(layout: Layout, edits: Edits) -> bytes:
    """Return two bytes over the names and plain values of what is edited or replaced, so that nothing else is."""
    sums = blake2b(digest_size=2)
    for path in layout.replaced:
        sums.update(repr(path).encode())
    for number in edits.loose:
        entry = layout.loose[number]
        sums.update(repr((entry.places, tuple(entry.shape), str(entry.dtype))).encode())
    for number, rank, _ in edits.numbers:
        layer = layout.module(number)
        assert layer is not None
        slot = slots_of(layer)[rank]
        value = value_in(layer, slot, layer.__dict__[slot.name])
        sums.update(repr((layout.paths[number], slot.name, slot.place, value)).encode())
    return sums.digest()


def write_edits(edits: Edits) -> bytes:
    """Write buffers not saved; how many modules have new numbers, and for each which and how large; the check."""
    body = ascending(edits.loose, -1)
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


def read_edits(cursor: Cursor) -> Edits:
    """Read the edits at the cursor.  Raises BadFile for more than fit."""
    start, loose = cursor.at, read_ascending(cursor, -1)
    numbers = read_changed_numbers(cursor)
    return Edits(loose, numbers, cursor.take(2), cursor.at - start)


def read_changed_numbers(cursor: Cursor) -> tuple[tuple[int, int, int], ...]:
    """Read which whole numbers of which modules have changed, to what."""
    module, numbers = -1, []
    for _ in range(cursor.number(cursor.left)):
        module, rank = module + 1 + cursor.number(MOST), -1
        for _ in range(some_count(cursor)):
            rank += 1 + cursor.number(MOST)
            numbers.append((module, rank, cursor.number(MOST)))
    return tuple(numbers)


def some_count(cursor: Cursor) -> int:
    """A count that is at least 1."""
    count = cursor.number(cursor.left)
    if not count:
        raise BadFile(f"file: a module is listed for new numbers and has none. {DAMAGED}")
    return count


@dataclass(frozen=True)
class Resolved:
    """Edits found in a network: the numbers to set, after the tensors are in."""

    numbers: tuple[tuple[nn.Module, AttributeSlot, int], ...] = ()

    def set_numbers(self) -> None:
        """Set the whole numbers."""
        for layer, slot, value in self.numbers:
            set_value(layer, slot, value)

    def names(self, network: nn.Module) -> list[tuple[str, str]]:
        """Return the path and the name of each attribute that has a number to set."""
        paths = {id(layer): path for path, layer in network.named_modules()}
        return [(paths[id(layer)], slot.name) for layer, slot, _ in self.numbers]


def resolve(edits: Edits, layout: Layout) -> Resolved:
    """Find what is edited in a network, changing nothing.  Raises BadFile, and WrongNetwork where the check fails."""
    if not edits and not layout.replaced:
        return Resolved()
    if any(number >= len(layout.loose) for number in edits.loose[-1:]):
        raise BadFile(f"file: it has buffer {edits.loose[-1]} of those that are not saved. {DAMAGED}")
    numbers, largest = [], largest_axis(layout.network)
    for number, rank, size in edits.numbers:
        layer = layout.module(number)
        if layer is None:
            raise BadFile(f"file: it edits module {number} of a network that has {len(layout.paths)}. {DAMAGED}")
        path, slots = layout.paths[number], slots_of(layer)
        if rank >= len(slots):
            raise BadFile(f"file: it sets number {rank} of {path or 'the network'}, which has none such. {DAMAGED}")
        value = value_in(layer, slots[rank], layer.__dict__[slots[rank].name]) or 0
        if impossible_size(layer, value, size, largest):
            raise BadFile(f"file: it sets {path or 'the network'}.{slots[rank].name}, {value}, to {size}. {DAMAGED}")
        numbers.append((layer, slots[rank], -size if value < 0 else size))
    if check_of(layout, edits) != edits.check:
        raise WrongNetwork(
            f"file: it was made from another network than this {type(layout.network).__name__}: what it edits is not there. "
            "Pass the network, or the maker, that it was compressed from."
        )
    return Resolved(tuple(numbers))
