"""Processor: times of calls in seconds of the processor, taken in turns; a busy machine changes them little."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.result import row
from cortado.machine import instruction_sets

ROUNDS, SHORTEST_S = 15, 0.02
Call = Callable[[], Any]


def processor_times(calls: dict[str, Call], rounds: int = ROUNDS) -> dict[str, np.ndarray]:
    """Return the processor's seconds per call, (rounds,) each; calls take turns, short ones several times in a row."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.process_time()
        call()
        repeats[name] = max(1, round(SHORTEST_S / max(time.process_time() - start, 1e-6)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(repeats[name]):
                call()
            taken[name].append((time.process_time() - start) / repeats[name])
    return {name: np.array(seconds) for name, seconds in taken.items()}


def faster_row(
    what: str, taken: dict[str, np.ndarray], name: str, against: str, bar: float | None, **facts: Any
) -> dict[str, Any]:
    """Return a row of how many times faster one call is than another: the median of the rounds' ratios, with quartiles."""
    low, middle, high = np.quantile(taken[against] / taken[name], (0.25, 0.5, 0.75))
    return row(
        f"{what} (quartiles {low:.2f} to {high:.2f})", float(middle), "x", bar, "higher",
        ms=float(1000 * np.median(taken[name])), instruction_sets=list(instruction_sets()), **facts,
    )  # fmt: skip
