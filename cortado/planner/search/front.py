"""Front: a recipe that was tried as a row of the report, written as one line."""

from dataclasses import MISSING, Field, fields
from typing import Any, Protocol

from cortado.engine.recipe import read
from cortado.methods.method import Method
from cortado.planner.search.trials import epochs_of
from cortado.report.candidate import Tried
from cortado.report.pages.words import knob_text


class Measured(Protocol):
    """What was measured of a recipe that was tried, on validation data."""

    @property
    def recipe(self) -> dict[str, Any]: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def latency_ms(self) -> float | None: ...
    @property
    def keeps_all(self) -> bool: ...


def tried(trial: Measured, taken: bool) -> Tried:
    """What a trial gave, with its recipe as a line; `taken` says whether it was judged at the end."""
    line = " | ".join(stage_line(stage) for stage in read(trial.recipe).stages)
    epochs = epochs_of(trial.recipe["stages"])
    return Tried(line, trial.size_bytes, trial.score, trial.keeps_all, taken, epochs, trial.latency_ms)


def stage_line(stage: Method) -> str:
    """A stage as `cortado compress --recipe` reads it, with the knobs that are not at their defaults."""
    words = [
        f"{one.name}={knob_text(value)}" for one in fields(stage) if (value := getattr(stage, one.name)) != start(one)
    ]
    return " ".join([stage.name(), *words])


def start(one: Field[Any]) -> object:
    """The default of a knob."""
    return one.default if one.default_factory is MISSING else one.default_factory()
