"""Slots: the whole numbers that a module keeps, alone or in lists, in an order that needs no names."""

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class AttributeSlot:
    """An integer attribute `name` of a module: a single one (`place` None), or one entry of a list or tuple."""

    name: str
    place: int | None = None


def slots_of(layer: nn.Module) -> list[AttributeSlot]:
    """Return the integer attributes of a module, in order of their names, without bools."""
    found = []
    for name in sorted(layer.__dict__):
        own = layer.__dict__[name]
        if type(own) is int:
            found.append(AttributeSlot(name))
        elif type(own) in (tuple, list) and all(type(part) is int for part in own):
            found += [AttributeSlot(name, place) for place in range(len(own))]
    return found


def value_in(layer: nn.Module, slot: AttributeSlot, like: Any) -> int | None:
    """Return the number in a slot; None if its structure differs from `like`, the original network's attribute."""
    own = layer.__dict__.get(slot.name)
    if slot.place is not None:
        fits = isinstance(own, (tuple, list)) and len(own) == len(like)
        own = own[slot.place] if fits else None  # type: ignore[index]
    return own if type(own) is int else None


def set_value(layer: nn.Module, slot: AttributeSlot, value: int) -> None:
    """Set the number in a slot."""
    own = layer.__dict__[slot.name]
    if slot.place is not None:
        own = type(own)(value if place == slot.place else part for place, part in enumerate(own))
    layer.__dict__[slot.name] = own if slot.place is not None else value


def largest_axis(original: nn.Module) -> int:
    """Return the largest size of any tensor: a cut sets no number above it."""
    return max((size for t in (*original.parameters(), *original.buffers()) for size in t.shape), default=0)


def impossible_size(layer: nn.Module, original_value: int, size: int, largest: int) -> bool:
    """Return whether no cut can have set this number: torch's own layers have at least one of everything."""
    least = 1 if original_value and type(layer).__module__.startswith("torch.nn.") else 0
    return not least <= size <= max(abs(original_value), largest)
