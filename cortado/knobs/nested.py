"""Nested: knobs that share a dataclass, such as `training`, whose inner names may be written flat."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from types import MappingProxyType
from typing import Any, TypeVar

from cortado import renamed
from cortado.errors import CortadoError
from cortado.knobs.knob import hints_of

Kind = TypeVar("Kind", bound=type)


@dataclass(frozen=True)
class Knob:
    """One knob of a class: its name, type, default and facts (help, low, high, one_of).

    `inside` is the nested knob that it is a part of, or "".
    """

    name: str
    hint: Any
    default: Any
    facts: Mapping[str, Any]
    inside: str = ""


@cache
def knobs_of(kind: type) -> Mapping[str, Knob]:
    """Return every knob of a class by name, in order; those of a nested knob in its place."""
    found: dict[str, Knob] = {}
    hints = hints_of(kind)
    for field in dataclasses.fields(kind):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            inner = knobs_of(type(default)).values()
            found |= {
                one.name: dataclasses.replace(one, default=getattr(default, one.name), inside=field.name)
                for one in inner
            }
        else:
            found[field.name] = Knob(field.name, hints[field.name], default, field.metadata)
    return MappingProxyType(found)


def flat_values(made: Any) -> dict[str, Any]:
    """Return the value of every knob by its flat name."""
    return {
        name: getattr(getattr(made, one.inside) if one.inside else made, name)
        for name, one in knobs_of(made.__class__).items()
    }


def nested(kind: type, given: Mapping[str, Any], title: str) -> dict[str, Any]:
    """Return the arguments of a class for flat names: those of a nested knob change its value given, or its default.

    Raises what the nested class raises, with `title` in the place of its own.
    """
    found = knobs_of(kind)
    arguments = {name: value for name, value in given.items() if name not in found or not found[name].inside}
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for inside in {one.inside for one in found.values() if one.inside}:
        inner = {name: value for name, value in given.items() if name in found and found[name].inside == inside}
        start = arguments.get(inside, defaults[inside])
        try:
            arguments |= {inside: dataclasses.replace(start, **inner)} if inner else {}
        except CortadoError as error:
            raise type(error)(f"{title}: {str(error).removeprefix(f'{inside}: ')}") from error
    return arguments


def flat_knobs(kind: Kind) -> Kind:
    """Let a method with nested knobs take and show their inner names too: Finetune(epochs=2).training.epochs is 2."""
    begin = kind.__init__  # type: ignore[misc]
    places = [one.name for one in dataclasses.fields(kind) if one.init and not one.kw_only]

    @wraps(begin)
    def taking_flat(self: Any, *arguments: Any, **named: Any) -> None:
        taken = places[: len(arguments)]
        twice = [name for name in taken if name in named]
        if twice:
            raise TypeError(f"{kind.__name__}: {twice[0]} is given twice, by place and by name. Keep one.")
        given = {**dict(zip(taken, arguments[: len(taken)], strict=True)), **named}
        begin(self, *arguments[len(places) :], **nested(kind, renamed.old_objectives(kind, given), kind.name()))  # type: ignore[attr-defined]

    kind.__init__ = taking_flat  # type: ignore[misc]
    for name, one in knobs_of(kind).items():
        if one.inside:
            setattr(kind, name, property(inner_value(one.inside, name)))
    return kind


def inner_value(inside: str, name: str) -> Callable[[Any], Any]:
    """Return a function that reads an inner knob."""
    return lambda made: getattr(getattr(made, inside), name)
