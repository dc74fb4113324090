"""Reading: knobs as a recipe writes them, with names and values checked; and as a recipe stores them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from cortado import renamed
from cortado.errors import BadRecipe
from cortado.knobs.nested import flat_values, knobs_of


class Written(ABC):
    """A value of a knob that a recipe writes as a name with knobs."""

    @abstractmethod
    def as_data(self) -> Any:
        """Return {name: {knob: value}}."""


def read_knobs(kind: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values of knobs by their flat names, from a recipe's.  Raises BadRecipe for an unknown name, with near ones."""
    known = knobs_of(kind)
    knobs = renamed.current_keys(
        where, unnested(kind, renamed.old_objectives(kind, given), where), renamed.KNOBS, known
    )
    for key in knobs:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known))}."
            raise BadRecipe(f"{where}: no knob {key!r}; {hint}")
    return {key: value_of(value, known[key].hint) for key, value in knobs.items()}


def unnested(kind: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return knobs with those of a nested one, `training: {epochs: 3}`, beside the others.

    Raises BadRecipe if one is given twice.
    """
    insides = {one.inside for one in knobs_of(kind).values()} - {""}
    found: dict[str, Any] = {}
    for key, value in given.items():
        inner = value if key in insides and isinstance(value, dict) else {key: value}
        if key in insides and not isinstance(value, dict):
            raise BadRecipe(f"{where}: {key} must be keys with values, got {value!r}. Write {key}: {{epochs: 3}}.")
        for name, one in inner.items():
            if name in found:
                raise BadRecipe(f"{where}: {name} is given twice, beside {key} and inside it. Keep one.")
            found[name] = one
    return found


def value_of(value: Any, hint: Any = None) -> Any:
    """Return a knob's value from YAML: lists become tuples, and 1e-5, which YAML reads as text, a number.

    A number for a text knob becomes text: the layers of an nn.Sequential are named 0, 1, 2.
    """
    if isinstance(value, list):
        return tuple(value_of(one) for one in value)
    if hint is str:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    number = isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value)
    return float(value) if number else value


def knob_data(made: Any) -> dict[str, Any]:
    """Return the knobs of a method or an objective as a recipe writes them, by their flat names."""
    return {name: written_value(value) for name, value in flat_values(made).items()}


def written_value(value: Any) -> Any:
    """Return what a recipe writes for a value: a `Written` one as its name with knobs, a tuple part by part."""
    if isinstance(value, tuple):
        return tuple(written_value(one) for one in value)
    return value.as_data() if isinstance(value, Written) else value
