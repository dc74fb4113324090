"""Proposal: a recipe for the next trial of a search, and the safe first one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cortado.engine.fingerprints import json_data
from cortado.engine.recipe import Recipe, read_recipe
from cortado.methods.method import Method
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.planner.search.shapes import Shape, integers
from cortado.planner.search.trials import SearchGoal

INTEGERS = Shape("", True, 0.0, 0).text()
"""The shape of the original network in integers, as text."""


@dataclass(frozen=True)
class Proposal:
    """A recipe as data, and its shape as text."""

    recipe: dict[str, Any]
    shape: str

    @classmethod
    def of(cls, stages: Sequence[Method], shape: str) -> "Proposal":
        """Return the proposal with these stages."""
        return cls(json_data(Recipe(tuple(stages), name="plan").as_data()), shape)


def stages_of(line: str) -> tuple[Method, ...]:
    """Return the stages of a one-line recipe; "" has none."""
    return read_recipe(line).stages if line else ()


def safe(wanted: SearchGoal, tail: str) -> Proposal:
    """Return the nearly lossless first proposal: 8 bits, for activations too if latency counts, and the tail."""
    if wanted.time_counts:
        return Proposal.of((*integers(), *stages_of(tail)), INTEGERS)
    return Proposal.of((QuantizeWeights(bits=8), *stages_of(tail)), "8 bits")
