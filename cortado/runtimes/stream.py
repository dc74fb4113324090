"""Stream: time networks whose path depends on the input by running through many different inputs.

One example repeated would time one path. All variants take the inputs in turns, some at a time, so that they share what
else the machine does, and caches stay warm as in use.
"""

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cortado.running.trees import map_tensors, sample_count
from cortado.task.data import Data

IN_A_ROW = 25
"""Inputs that a variant runs before the next one has its turn."""
WARM = 3
"""Calls at the start of a turn that are not timed."""
FEWEST_PASSES, MOST_PASSES = 3, 100
MOST_INPUTS = 500
Timer = Callable[[], float]


def stream_of(data: Data, batch: int, most: int = MOST_INPUTS) -> list[Any]:
    """Return the first samples of some data in batches of one size, as different inputs; at most `most` batches.

    What is left over is left out, unless it is all there is.
    """
    found: list[Any] = []
    for inputs, _ in data.batches(max(batch, 64) // batch * batch):
        count = sample_count(inputs)
        found += [rows_of(inputs, start, batch) for start in range(0, count - batch + 1, batch)]
        if len(found) >= most:
            break
    return found[:most] or [next(iter(data.batches(batch)))[0]]


def rows_of(inputs: Any, start: int, count: int) -> Any:
    """Return `count` samples of a batch."""
    return map_tensors(lambda part: part[start : start + count].contiguous() if part.dim() else part, inputs)


def streamed(
    variants: Sequence[Sequence[Callable[[], object]]], seconds: float, timer: Timer = time.perf_counter
) -> np.ndarray:
    """Return milliseconds (passes, variants, inputs): each variant is a list of calls, one for each input.

    Passes go on for about `seconds`. `timer` may be time.process_time, which other programs disturb less.
    """
    count, collecting = len(variants[0]), gc.isenabled()
    passes: list[np.ndarray] = []
    for calls in variants:
        for call in calls[:IN_A_ROW]:
            call()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while len(passes) < FEWEST_PASSES or (time.perf_counter() < end and len(passes) < MOST_PASSES):
            taken = np.empty((len(variants), count))
            for start in range(0, count, IN_A_ROW):
                for number, calls in enumerate(variants):
                    for call in calls[start : start + WARM]:
                        # The variant before left the caches to itself.
                        call()
                    for place in range(start, min(start + IN_A_ROW, count)):
                        before = timer()
                        calls[place]()
                        taken[number, place] = (timer() - before) * 1000
            passes.append(taken)
    finally:
        if collecting:
            gc.enable()
    return np.stack(passes)
