"""Tried: a candidate of a search as it was measured, and which of several no other beats."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


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


def undominated(points: Sequence[tuple[float, float]], higher_is_better: bool) -> list[tuple[float, float]]:
    """Of (bytes, score) those for which no other is both as small and as good, smallest first; each place once.

    A score that is no number is beaten by any.
    """
    sign = 1 if higher_is_better else -1
    found: list[tuple[float, float]] = []
    for size, score in sorted(points, key=lambda one: (one[0], -sign * one[1])):
        if math.isfinite(score) and (not found or sign * score > sign * found[-1][1]):
            found.append((size, score))
    return found
