"""Counts: how often each whole number, and each run of zeros, occurs in a list - in blocks, so that memory stays small."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

BLOCK, NARROW = 1 << 20, 1 << 16


def blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a flat list piece by piece."""
    for start in range(0, len(values), BLOCK):
        yield values[start : start + BLOCK]


def runs_of_zeros(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield, piece by piece, how many zeros lie before each nonzero entry of a flat list."""
    last = -1
    for number, block in enumerate(blocks(values)):
        places = np.flatnonzero(block) + number * BLOCK
        if len(places):
            yield np.diff(places, prepend=last) - 1
            last = int(places[-1])


def counted(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole numbers that occur in all parts together, ascending, and how often each does (both int64)."""
    totals: Counter[int] = Counter()
    for part in parts:
        low = int(part.min())
        if int(part.max()) - low < NARROW:
            counts = np.bincount((part - low).ravel())
            found = np.flatnonzero(counts)
            counts = counts[found]
            found = found + low
        else:
            found, counts = np.unique(part, return_counts=True)
        totals.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    order = sorted(totals)
    return np.array(order, dtype=np.int64), np.array([totals[value] for value in order], dtype=np.int64)
