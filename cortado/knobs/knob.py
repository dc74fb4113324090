"""Knob: a field of a method, an objective or a training, with its meaning and its range; and the check of both."""

import dataclasses
import reprlib
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from cortado.errors import BadValue
from cortado.renamed import KNOB, old_arguments

SHORT = reprlib.Repr()
"""How a value is shown in a message: long ones in part."""
SHORT.maxstring, SHORT.maxother = 200, 80


@old_arguments(KNOB)
def knob(
    default: Any,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    one_of: tuple[Any, ...] = (),
    kw_only: bool = False,
) -> Any:
    """Return a dataclass field for a method: default, help text, and allowed values (low..high, or `one_of`).

    A default that is a dataclass makes a nested knob: its inner names may be written flat (see cortado.knobs.nested).

    >>> keep = cortado.knob(0.5, low=0.0, high=1.0, help="share of weights kept")
    """
    facts = {"help": help, "low": low, "high": high, "one_of": one_of}
    # Without an answer of its own, a field is by keyword only below a KW_ONLY of its class.
    return dataclasses.field(default=default, metadata=facts, kw_only=kw_only or dataclasses.MISSING)


@cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """Return the annotated types of a class, worked out once: methods are made by the thousand in a search."""
    return types.MappingProxyType(typing.get_type_hints(kind))


def check_knobs(made: Any, title: str) -> None:
    """Raise BadValue for a knob of the wrong type or outside its range; `title` starts the message."""
    hints = hints_of(made.__class__)
    for field in dataclasses.fields(made):
        check_knob(title, field, hints[field.name], getattr(made, field.name), made)


def check_knob(title: str, field: dataclasses.Field[Any], hint: Any, value: Any, owner: Any) -> None:
    """Raise BadValue unless a knob has the right type and range; whole numbers are accepted as floats."""
    if isinstance(value, int) and not isinstance(value, bool) and accepts(hint, 0.5) and not accepts(hint, value):
        value = float(value)
        object.__setattr__(owner, field.name, value)
    if not accepts(hint, value):
        wanted = getattr(hint, "__name__", str(hint))
        raise BadValue(
            f"{title}: {field.name} must be {wanted}, got {SHORT.repr(value)}. It means: {field.metadata.get('help', '')}."
        )
    low, high, one_of = (field.metadata.get(key) for key in ("low", "high", "one_of"))
    # A user's own function is accepted in place of a name.
    if one_of and not callable(value) and value not in one_of:
        raise BadValue(f"{title}: {field.name} must be one of {', '.join(map(str, one_of))}, got {value!r}.")
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        # `not (a <= b)` instead of `a > b`, so that NaN is rejected too.
        if (low is not None and not low <= number) or (high is not None and not number <= high):
            span = f"{'' if low is None else format(low, 'g')}..{'' if high is None else format(high, 'g')}"
            raise BadValue(
                f"{title}: {field.name} must lie in {span}, got {number:g}. It means: {field.metadata['help']}."
            )


def accepts(hint: Any, value: Any) -> bool:
    """Return whether a value has the annotated type (plain classes, unions, tuples and mappings are checked)."""
    origin = typing.get_origin(hint)
    if hint is Any or origin is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(accepts(part, value) for part in typing.get_args(hint))
    if hint is None or hint is type(None):
        return value is None
    if origin is not None:
        return callable(value) if origin is typing.get_origin(typing.Callable[..., Any]) else isinstance(value, origin)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, hint)
