"""Renamed: the names of version 0.1, understood for one version more, each with a warning that tells the new one."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, TypeVar

from cortado.errors import BadRecipe, BadValue

METHODS = {
    "tune": "finetune", "match": "match_moments", "settle": "finalize", "prune/rate": "prune/rate_distortion",
    "quantize/signals": "quantize/activations", "quantize/ladder": "quantize/ptq_search",
    "cortado.planner.mix:Mix": "allocate", "cortado.planner.widths:Widths": "prune/widths",
}  # fmt: skip
KNOBS = {"rate": "lr", "signals": "activations", "ways": "candidate_recipes"}
VALUES = {
    "quantize/equalize by": {"signals": "activations"}, "quantize/ptq_search data": {"imagined": "synthetic"},
    "distill/logits teacher": {"plain": "original"},
    "prune/rate_distortion teacher": {"plain": "original"},
}  # fmt: skip
PENALTY = {"penalty": "objectives", "strength": "weight", "growing": "growing"}
"""Knobs of finetune that named one penalty, and what says the same today: objectives: [task, {penalty: {weight, growing}}]."""
PENALTIES = {"gains": "norm_gains", "low_rank": "nuclear_norm"}
KEYS = {"says": "notes", "match": "match_moments"}
FACE = {"Score": "Metric", "WeightScore": "Importance"}
TASK = {"choice": "validation", "verdict": "test", "score": "metric", "answers": "outputs"}
OUTPUTS = {"classes": "Classes()", "numbers": "Numbers()"}
"""Kinds of a task's outputs."""
FILE = {"plain": "original"}
KNOB = {"says": "help"}
FORMS = {"codebook": "palette", "product_quantized": "products"}
"""The names that the file format has for forms called otherwise today."""
OPTIONS = {"--measure-in": "--time", "--time-limit": "--budget"}
"""What options of the command line were called."""
REPORT = {
    "plain_bytes": "original_bytes", "plain_choice": "original_validation", "verdict": "test", "score_name": "metric_name",
    "score_unit": "metric_unit", "plain": "original", "plain_entries": "original_entries", "plain_bits": "original_bits",
    "signals": "activations",
}  # fmt: skip
"""Keys of report.json."""
Made = TypeVar("Made", bound=Callable[..., Any])
Kind = TypeVar("Kind", bound=type)


def warn(where: str, old: str, new: str) -> None:
    """Warn the user that a name is an old one."""
    warnings.warn(f"{where}: {old!r} is now called {new!r}. The old name goes with the next version.", FutureWarning, 4)


def current(where: str, old: str, names: Mapping[str, str]) -> str:
    """Return the new name of `old`, with a warning, or `old` itself where it has none."""
    if old not in names:
        return old
    warn(where, old, names[old])
    return names[old]


def current_keys(where: str, data: Mapping[str, Any], names: Mapping[str, str], known: Any = ()) -> dict[str, Any]:
    """Return `data` with its old keys renamed, but for those in `known`.  Raises BadRecipe where both names are given."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        new = key if key in known or not isinstance(key, str) else current(where, key, names)
        if new in found or (new != key and new in data):
            raise BadRecipe(f"{where}: {key} is the old name of {new}, and both are given. Keep {new}.")
        found[new] = value
    return found


def old_objectives(kind: type, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the knobs of a method that has objectives with an old penalty, its strength and growth among them.

    Raises BadRecipe where both ways are written.
    """
    fields = getattr(kind, "__dataclass_fields__", {})
    if "objectives" not in fields or not any(name in given and name not in fields for name in PENALTY):
        return given
    where = f"{kind.__module__.rpartition('.')[2]}"
    if "objectives" in given:
        raise BadRecipe(f"{where}: objectives and the old penalty are both given. Keep objectives.")
    name = PENALTIES.get(given.get("penalty", ""), given.get("penalty", ""))
    knobs = {"weight": given.get("strength", 1e-4), "growing": given.get("growing", False)}
    new = f"objectives: [task, {name}: {{weight: {knobs['weight']}}}]"
    warn(where, "penalty", new if name else "objectives")
    added: tuple[Any, ...] = ({name: knobs},) if name else ()
    return {**{key: one for key, one in given.items() if key not in PENALTY}, "objectives": ("task", *added)}


def current_values(method: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs of a method with the new words where a value is an old one."""
    spots = {key: VALUES.get(f"{method} {key}", {}) for key in knobs}
    return {
        key: current(f"{method} {key}", value, spots[key]) if isinstance(value, str) else value
        for key, value in knobs.items()
    }


def of_report(data: Any) -> Any:
    """Return what report.json holds with the names of today, but for the recipe in it."""
    if isinstance(data, list):
        return [of_report(one) for one in data]
    if not isinstance(data, dict):
        return data
    return {REPORT.get(key, key): value if key == "recipe" else of_report(value) for key, value in data.items()}


def old_arguments(names: Mapping[str, str]) -> Callable[[Made], Made]:
    """Let a function take keyword arguments by their old names too."""

    def decorate(function: Made) -> Made:
        @wraps(function)
        def taking_both(*arguments: Any, **named: Any) -> Any:
            for old in [name for name in named if name in names]:
                new = names[old]
                if new in named:
                    raise BadValue(
                        f"{function.__name__}: {old}= is the old name of {new}=, and both are given. Keep {new}=."
                    )
                warn(function.__qualname__.removesuffix(".__init__"), old, new)
                named[new] = named.pop(old)
            return function(*arguments, **named)

        return taking_both  # type: ignore[return-value]

    return decorate


def old_fields(names: Mapping[str, str]) -> Callable[[Kind], Kind]:
    """Let a dataclass take and show its fields by their old names too."""

    def decorate(kind: Kind) -> Kind:
        begin = kind.__init__  # type: ignore[misc]
        kind.__init__ = old_arguments(names)(begin)  # type: ignore[misc]
        for old, new in names.items():
            setattr(kind, old, property(partial(shown, old=old, new=new)))
        return kind

    return decorate


def shown(made: Any, old: str, new: str) -> Any:
    """Return the value of a field that was asked for by its old name."""
    return getattr(made, current(type(made).__name__, old, {old: new}))
