"""Front: a trial as a row of the report, its recipe in one line."""

import math
from typing import Any

import yaml

from cortado.engine.fingerprints import json_data
from cortado.engine.recipe import read_recipe
from cortado.knobs.nested import flat_values, knobs_of
from cortado.knobs.reading import written_value
from cortado.methods.method import Method
from cortado.planner.search.trials import Trial
from cortado.report.candidate import Tried
from cortado.report.pages.words import knob_text


def tried(trial: Trial, taken: bool) -> Tried:
    """Return a trial as a row of the report; `taken`: whether it is the result of the search."""
    line = " | ".join(stage_line(stage) for stage in read_recipe(trial.recipe).stages)
    return Tried(line, trial.size_bytes, trial.score, trial.keeps_all, taken, trial.epochs, trial.latency_ms)


def stage_line(stage: Method) -> str:
    """Return a stage in the syntax of `cortado compress --recipe`, without knobs at their defaults."""
    known, values = knobs_of(type(stage)), flat_values(stage)
    words = [
        f"{name}={value_text(written_value(value))}" for name, value in values.items() if value != known[name].default
    ]
    return " ".join([stage.name(), *words])


def value_text(value: Any) -> str:
    """Return a value as a line writes it: a list in YAML, anything else as the pages do."""
    if not isinstance(value, tuple) or all(isinstance(one, str) for one in value):
        return knob_text(value)
    return yaml.safe_dump(json_data(value), default_flow_style=True, width=math.inf, sort_keys=False).strip()
