"""Candidate: a measured trial of a search, and the Pareto front."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Tried:
    """A trial of a search as a row of the report.

    `size_bytes` of its file, `score` on the validation data, `latency_ms` of one call (None if not timed); `kept`: whether
    it met every limit there; `taken`: whether it is the result. `recipe` is one line of text, `epochs` its training.
    """

    recipe: str
    size_bytes: int
    score: float
    kept: bool
    taken: bool = False
    epochs: float = 0.0
    latency_ms: float | None = None


def smallest_first(front: Sequence[Tried]) -> list[Tried]:
    """Return the trials in the order of tables and charts."""
    return sorted(front, key=lambda one: one.size_bytes)


def pareto_front(items: Sequence[T], cost: Callable[[T], float], harm: Callable[[T], float]) -> list[T]:
    """Return the Pareto front of cost and harm, by rising cost, without duplicates and items of non-finite harm."""
    front: list[T] = []
    for one in sorted(items, key=lambda one: (cost(one), harm(one))):
        if math.isfinite(harm(one)) and (not front or harm(one) < harm(front[-1])):
            front.append(one)
    return front
