"""Ranges: a recipe with open knobs, and the recipe at one point.

Written keep=0.4..0.8, bits=3,4,6 or by=[magnitude, taylor]; a missing end is the knob's own bound: keep=.., keep=0.3...
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortado.engine.job import Job
from cortado.engine.recipe import (
    Recipe,
    beside,
    data_of,
    make_stage,
    method_class,
    read_recipe,
    stage_data,
    word_value,
    words_of,
)
from cortado.errors import BadRecipe, BadValue
from cortado.knobs.knob import accepts
from cortado.knobs.nested import knobs_of
from cortado.knobs.reading import unnested, value_of
from cortado.methods.method import Method
from cortado.planner.search.options import opened_options

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
SPAN = re.compile(rf"^\s*({NUMBER})?\s*\.\.\s*({NUMBER})?\s*$")
RATIO = 10.0
"""Ranges whose ends differ by this factor or more are searched on a log scale."""
DIGITS = 4
"""Significant digits of drawn values, to keep recipes readable."""


@dataclass(frozen=True)
class Range:
    """The values of one knob: one of `one_of`, or a number from `low` to `high`, an integer if `whole`.

    `even_ratios`: drawn on a log scale. `name` is the stage's number, its method and the knob.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    one_of: tuple[Any, ...] = ()

    @property
    def even_ratios(self) -> bool:
        return not self.one_of and self.low > 0 and self.high / self.low >= RATIO

    def value(self, drawn: Any) -> Any:
        """Return the recipe's value for a drawn value."""
        if self.one_of:
            return drawn
        if self.whole:
            return int(drawn)
        if self.even_ratios:
            rounded = float(f"{drawn:.{DIGITS}g}")
        else:
            rounded = round(drawn, math.ceil(DIGITS - 1 - math.log10(self.high - self.low)))
        return min(max(rounded, self.low), self.high)


@dataclass(frozen=True)
class Ranged:
    """A recipe with ranges: its stages as data, with a Range for each open value."""

    stages: tuple[Any, ...]
    ranges: tuple[Range, ...]
    head: dict[str, Any] = field(default_factory=dict)

    def at(self, point: dict[str, Any]) -> Recipe:
        """Return the recipe at a point, a drawn value for each range by name.  Raises what the methods raise."""
        return read_recipe({**self.head, "stages": [closed(stage, point) for stage in self.stages]})

    def as_data(self) -> list[Any]:
        """Return stages and ranges as plain data, to identify the search."""
        facts = {
            one.name: ["one of", *one.one_of] if one.one_of else ["from", one.low, one.high] for one in self.ranges
        }
        return [closed(stage_data(one) if isinstance(one, Method) else one, facts, False) for one in self.stages]


def closed(data: Any, point: dict[str, Any], drawn: bool = True) -> Any:
    """Return the data with each range replaced by its value at a point."""
    if isinstance(data, Range):
        return data.value(point[data.name]) if drawn else point[data.name]
    if isinstance(data, dict):
        return {key: closed(value, point, drawn) for key, value in data.items()}
    return [closed(value, point, drawn) for value in data] if isinstance(data, list) else data


def read_ranged(source: Any) -> Ranged:
    """Read a recipe with ranges from any source of a recipe.

    Raises BadRecipe if no knob is open or a range cannot be read, BadValue for a range beyond its knob's bounds.
    """
    stages_as_data, head = stages_given(source)
    found: list[Range] = []
    stages = tuple(opened(stage, str(number), found) for number, stage in enumerate(stages_as_data, 1))
    if not found:
        raise BadRecipe(
            "search: the recipe has no ranges. Write some, such as prune/channels keep=0.4..0.8 | "
            "quantize/weights bits=3,4,6 | finetune lr=1e-4..1e-2, or run it with compress."
        )
    return Ranged(stages, tuple(found), head)


def stages_given(source: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the stages of any source of a recipe as data, and what else a file says.  Raises BadRecipe."""
    head: dict[str, Any] = {}
    if isinstance(source, Path) or (isinstance(source, str) and source.endswith((".yaml", ".yml"))):
        path = Path(source)
        source = beside(path, data_of(path))
        head = {"name": path.stem}
    if isinstance(source, dict):
        head |= {key: value for key, value in source.items() if key != "stages"}
        source = source.get("stages")
    if isinstance(source, str):
        source = source.split("|")
    if isinstance(source, (list, tuple)):
        source = [stage_of(one, f"recipe, stage {number}") for number, one in enumerate(source, 1)]
    if isinstance(source, (Recipe, Method)):
        source = read_recipe(source).stages
    if not isinstance(source, (list, tuple)):
        raise BadRecipe(f"recipe: a recipe is a file, a text, a list or a mapping with stages, got {source!r}.")
    return list(source), head


def shape_recipe(job: Job, recipe: Any, taught: bool) -> dict[str, Any]:
    """Return the recipe that makes a network of a job's open options, trains it as the job says, and does the rest.

    `taught`: the training learns from the original too (distill/logits).  Raises BadRecipe for a job without training.
    """
    if not job.training:
        raise BadRecipe(
            "search: a network of open options has to be trained, and the job does not say how. Give it train: {epochs: 5, ...}."
        )
    options = {**dict(job.text.get("options") or {}), **job.open_options}
    training = beside(job.source, job.training)
    make = {"student": {"network": job.text["network"], "options": options}}
    learn = {"distill/logits": {"training": training}} if taught else {"finetune": training}
    stages, head = ([], {}) if recipe is None else stages_given(recipe)
    return {**head, "stages": [make, learn, *stages]}


def stage_of(data: Any, where: str) -> Any:
    """Return a stage as data; a line of text as its name with its knobs."""
    if not isinstance(data, str) or data == "repeat":
        return data
    name, knobs = words_of(data, where)
    return {name: knobs}


def opened(stage: Any, number: str, found: list[Range], listed: bool = True) -> Any:
    """Return a stage's data with its ranges parsed, and append them to `found`.

    `listed`: a list is a range too. In a repeat a list has one value per round, and ranges are drawn once for all rounds.
    """
    if not (isinstance(stage, dict) and len(stage) == 1):
        return stage
    name, knobs = next(iter(stage.items()))
    if not isinstance(knobs, dict) or not isinstance(name, str):
        return stage
    if name == "repeat":
        inner = knobs.get("do")
        if not isinstance(inner, list):
            return stage
        done = [opened(one, f"{number}.{place}", found, listed=False) for place, one in enumerate(inner, 1)]
        return {name: {**knobs, "do": done}}
    kind = method_class(name)
    known = knobs_of(kind)
    written: dict[str, Any] = {}
    for key, value in unnested(kind, knobs, f"recipe, stage {number} ({name})").items():
        if key not in known:
            # Raises with the knobs that exist.
            make_stage(name, {key: value}, f"recipe, stage {number}")
            written[key] = value
            continue
        title = f"{number} {name} {key}"
        if key == "options" and isinstance(value, dict) and knobs.get("network"):
            written[key] = opened_options(knobs["network"], value, f"{number} {name}", range_of_listed)
            found += [one for one in written[key].values() if isinstance(one, Range)]
            continue
        span = range_of(title, value, known[key].hint, known[key].facts, listed)
        written[key] = value if span is None else span
        found += [] if span is None else [span]
    return {name: written}


def range_of_listed(title: str, value: Any, hint: Any, facts: Any) -> Range | None:
    """Return the range in an option's value, of which a list names several; None for a plain value."""
    return range_of(title, value, hint, facts, True)


def range_of(title: str, value: Any, hint: Any, facts: Any, listed: bool) -> Range | None:
    """Return the range in a knob's value, or None for a plain value."""
    numeric = hint is not Any and (accepts(hint, 1) or accepts(hint, 0.5))
    closed_set = tuple(facts.get("one_of") or ())
    if isinstance(value, list):
        return one_of_these(title, value, hint, facts) if listed and not accepts(hint, ()) else None
    if not isinstance(value, str) or not (numeric or closed_set or hint is bool):
        return None
    ends = SPAN.match(value)
    if ends and (closed_set or hint is bool):
        if value.strip() != "..":
            raise BadRecipe(
                f"search: {title} takes one of a few values, got {value!r}. Name them with commas, or write .. for all."
            )
        return one_of_these(title, list(closed_set or (False, True)), hint, facts)
    if ends:
        return span_of(title, ends.groups(), hint, facts)
    if "," in value:
        return one_of_these(title, [word_value(part.strip()) for part in value.split(",")], hint, facts)
    return None


def one_of_these(title: str, values: list[Any], hint: Any, facts: Any) -> Range:
    """Return the range of a few values.  Raises BadRecipe for fewer than two, BadValue for one the knob does not take."""
    given = tuple(dict.fromkeys(value_of(one, hint) for one in values))
    if len(given) < 2:
        raise BadRecipe(f"search: {title} has one value, got {values}. Name two or more, or write it as a plain value.")
    among = facts.get("one_of")
    for one in given:
        fits = accepts(hint, one) or (accepts(hint, 0.5) and isinstance(one, int))
        if not fits or (among and one not in among):
            raise BadValue(f"search: {title} cannot be {one!r}. It means: {facts.get('help', '')}.")
        if isinstance(one, (int, float)) and not isinstance(one, bool):
            check_ends(title, one, one, facts)
    return Range(title, one_of=given)


def span_of(title: str, ends: tuple[Any, ...], hint: Any, facts: Any) -> Range:
    """Return the range between two numbers; a missing end is the knob's own bound."""
    low, high = (facts.get(key) if end is None else float(end) for key, end in zip(("low", "high"), ends, strict=True))
    if low is None or high is None:
        side = "least" if low is None else "largest"
        raise BadRecipe(f"search: {title} has no {side} value of its own. Write both ends, such as 1e-4..1e-2.")
    whole = not accepts(hint, 0.5)
    if not low < high or (whole and (low % 1 or high % 1)):
        wanted = "whole numbers, the lower one first" if whole else "the lower one first"
        raise BadRecipe(f"search: {title} runs from {low:g} to {high:g}. Write {wanted}.")
    check_ends(title, low, high, facts)
    return Range(title, low, high, whole)


def check_ends(title: str, low: float, high: float, facts: Any) -> None:
    """Raise BadValue for numbers beyond the knob's bounds."""
    least, most = facts.get("low"), facts.get("high")
    if (least is not None and low < least) or (most is not None and high > most):
        span = f"{'' if least is None else format(least, 'g')}..{'' if most is None else format(most, 'g')}"
        given = f"{low:g}" if low == high else f"{low:g}..{high:g}"
        raise BadValue(f"search: {title} must be in {span}, got {given}. It means: {facts.get('help', '')}.")
