"""Front: a trial as a row of the report, its recipe in one line."""

from dataclasses import MISSING, Field, fields
from typing import Any

from cortado.engine.recipe import read_recipe
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
    words = [
        f"{one.name}={knob_text(value)}"
        for one in fields(stage)
        if (value := getattr(stage, one.name)) != default_of(one)
    ]
    return " ".join([stage.name(), *words])


def default_of(one: Field[Any]) -> object:
    """Return the default of a knob."""
    return one.default if one.default_factory is MISSING else one.default_factory()
