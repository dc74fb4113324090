"""Tried: a candidate of a search as it was measured, and which of several no other beats."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Tried:
    """A network that was made, measured and kept or passed over.

    `size_bytes` are of its file, `score` is on the validation data, `latency_ms` of one call (None where it was not timed);
    `kept` says whether it kept every limit there, `taken` that it was judged at the end. `recipe` is one line of text,
    `epochs` how long it was trained.
    """

    recipe: str
    size_bytes: int
    score: float
    kept: bool
    taken: bool = False
    epochs: float = 0.0
    latency_ms: float | None = None


def smallest_first(front: Sequence[Tried]) -> list[Tried]:
    """In the order in which tables and charts number them; equals stay as they came."""
    return sorted(front, key=lambda one: one.size_bytes)


def pareto_front(items: Sequence[T], cost: Callable[[T], float], harm: Callable[[T], float]) -> list[T]:
    """Return those items for which no other has both as low a cost and as low a harm, by rising cost; each place once.

    An item whose harm is no number is beaten by any.
    """
    front: list[T] = []
    for one in sorted(items, key=lambda one: (cost(one), harm(one))):
        if math.isfinite(harm(one)) and (not front or harm(one) < harm(front[-1])):
            front.append(one)
    return front
