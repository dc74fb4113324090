"""Front: a recipe that was tried as a row of the report, written as one line."""

from dataclasses import MISSING, Field, fields
from typing import Any

from cortado.method import Method
from cortado.methods.repeat import Repeat
from cortado.pages.words import knob_text
from cortado.recipe import read
from cortado.tried import Tried


def tried(recipe: dict[str, Any], size_bytes: int, score: float, kept: bool, taken: bool) -> Tried:
    """What a recipe (as data) gave: bytes of its file, its score on choice data, whether it kept its limits there."""
    stages = read(recipe).stages
    epochs = sum(epochs_of(stage) for stage in stages)
    return Tried(" | ".join(stage_line(stage) for stage in stages), size_bytes, score, kept, taken, epochs)


def stage_line(stage: Method) -> str:
    """A stage as `cortado compress --recipe` reads it, with the knobs that are not at their defaults.

    `repeat`, which no line can hold, is written with the number of its rounds.
    """
    if isinstance(stage, Repeat):
        return f"repeat rounds={len(stage.rounds)}"
    words = [
        f"{one.name}={knob_text(value)}" for one in fields(stage) if (value := getattr(stage, one.name)) != start(one)
    ]
    return " ".join([stage.name(), *words])


def start(one: Field[Any]) -> object:
    """The default of a knob."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def epochs_of(stage: Method) -> float:
    """Epochs that a stage trains."""
    data = {one.name: getattr(stage, one.name) for one in fields(stage)}
    if isinstance(stage, Repeat):
        return sum(epochs_of(inner) for stages in stage.rounds for inner in stages)
    return float(data["epochs"]) if stage.trains and "epochs" in data else 0.0
