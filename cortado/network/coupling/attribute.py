"""Attribute: an integer that a module stores, alone or in a list, and how to read and set it."""

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Attribute:
    """The attribute `name` of the module at `path`; its entry `place` where it is a list or tuple."""

    path: str
    name: str
    place: int | None = None


Edits = dict[Attribute, int]
"""New values of attributes."""


def read_attribute(modules: dict[str, nn.Module], attribute: Attribute) -> int:
    """Return the present value."""
    value = modules[attribute.path].__dict__[attribute.name]
    return int(value if attribute.place is None else value[attribute.place])


def set_attributes(network: nn.Module, edits: Edits) -> dict[tuple[str, str], Any]:
    """Set attributes to new values; return the old ones by (module, name), for restoring."""
    modules = dict(network.named_modules())
    before: dict[tuple[str, str], Any] = {}
    for attribute, value in edits.items():
        own = modules[attribute.path].__dict__
        before.setdefault((attribute.path, attribute.name), own[attribute.name])
        if attribute.place is None:
            own[attribute.name] = value
        else:
            parts = list(own[attribute.name])
            parts[attribute.place] = value
            own[attribute.name] = type(own[attribute.name])(parts)
    return before


def attributes_with(module: nn.Module, path: str, value: int) -> list[Attribute]:
    """Return the attributes of a module that have this value."""
    found = []
    for name, own in module.__dict__.items():
        if type(own) is int and own == value:
            found.append(Attribute(path, name))
        elif type(own) in (tuple, list) and all(type(part) is int for part in own):
            found += [Attribute(path, name, place) for place, part in enumerate(own) if part == value]
    return found
