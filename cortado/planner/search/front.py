"""Front: a recipe that was tried as a row of the report, written as one line."""

from dataclasses import MISSING, Field, fields
from typing import Any

from cortado.engine.recipe import read
from cortado.methods.method import Method
from cortado.planner.search.trials import Trial
from cortado.report.candidate import Tried
from cortado.report.pages.words import knob_text


def tried(trial: Trial, taken: bool) -> Tried:
    """Return what a trial gave, with its recipe as a line; `taken` says whether it was judged at the end."""
    line = " | ".join(stage_line(stage) for stage in read(trial.recipe).stages)
    return Tried(line, trial.size_bytes, trial.score, trial.keeps_all, taken, trial.epochs, trial.latency_ms)


def stage_line(stage: Method) -> str:
    """Return a stage as `cortado compress --recipe` reads it, with the knobs that are not at their defaults."""
    words = [
        f"{one.name}={knob_text(value)}" for one in fields(stage) if (value := getattr(stage, one.name)) != start(one)
    ]
    return " ".join([stage.name(), *words])


def start(one: Field[Any]) -> object:
    """Return the default of a knob."""
    return one.default if one.default_factory is MISSING else one.default_factory()
