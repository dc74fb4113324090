"""Options: a maker's options as ranges, so that a search can choose the shape of a network."""

import inspect
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from cortado.errors import BadRecipe
from cortado.nets.named import maker_named, named_text

Opened = Callable[[str, Any, Any, Mapping[str, Any]], Any]
"""(title, value, hint, facts) -> a Range, or None for a plain value."""
WHOLE = re.compile(r"^[\s\d.,+-]*$")
NUMBERS = (int, float, bool, str)


def opened_options(named: Any, options: Mapping[str, Any], title: str, opened: Opened) -> dict[str, Any]:
    """Return a maker's options with a Range for each open one.

    Raises BadRecipe, with near names, for an option that the maker does not have; BadRecipe for a maker that cannot be found.
    """
    known = parameters_of(named, "search")
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known and not takes_any:
            near = get_close_matches(str(name), known, n=1)
            meant = f"Did you mean {near[0]}? " if near else ""
            if not isinstance(name, str):
                meant = "In YAML, several values between braces are a list: depth: [1, 2]. "
            has = f"It has: {', '.join(known)}." if known else "It has none."
            raise BadRecipe(f"search: {named_text(named)} has no option {name!r}. {meant}{has}")
        hint = hint_of(known.get(name), value)
        span = opened(f"{title} {name}", value, hint, {})
        found[name] = value if span is None else span
    return found


def parameters_of(named: Any, where: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a maker.  Raises BadRecipe for a maker that cannot be found."""
    return inspect.signature(maker_named(named, where)).parameters


def hint_of(parameter: inspect.Parameter | None, value: Any) -> Any:
    """Return the type of an option: the maker's annotation, else that of its default, else whole numbers if all are whole."""
    annotation = None if parameter is None else parameter.annotation
    if annotation not in (None, inspect.Parameter.empty) and not isinstance(annotation, str):
        return annotation
    default = None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default
    if type(default) in NUMBERS:
        return type(default)
    text = str(value)
    whole = WHOLE.match(text) is not None and not re.search(r"\d\.\d", text)
    return int if whole else float | str
