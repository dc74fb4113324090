"""Taught: networks that learned with or without a teacher, and what the teacher was worth, with an interval in pairs."""

import base64
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.kept import kept
from bench.result import PIECES, row
from cortado.task.measure import mean_score, scores
from cortado.task.task import Task

Run = dict[str, Any]
"""validation and test in %, right (a bit for each test sample), minutes of CPU."""


def run_of(name: str, settings: Any, task: Task, make: Callable[[], nn.Module]) -> Run:
    """Return the kept run of these settings, or train and score the network now."""

    def measured() -> Run:
        start = time.process_time()
        network = make()
        minutes = (time.process_time() - start) / 60
        right = scores(network, task.test, task.metric) > 0
        found = {
            "settings": settings,
            "validation": mean_score(network, task.validation, task.metric),
            "test": 100 * float(right.double().mean()),
            "right": base64.b85encode(np.packbits(right.numpy()).tobytes()).decode(),
            "minutes": round(minutes, 2),
        }
        print(name, settings, found["validation"], found["test"], found["minutes"], flush=True)
        return found

    return kept(name, settings, measured, PIECES)


def right_answers(run: Run, count: int) -> torch.Tensor:
    """Return which of the test samples a run answers right (N,), as 0 and 1."""
    body = np.frombuffer(base64.b85decode(run["right"]), np.uint8)
    return torch.from_numpy(np.unpackbits(body, count=count).astype(np.float64))


def gain(taught: Sequence[Run], alone: Sequence[Run], count: int) -> tuple[float, float]:
    """Return the points that the first runs have over the second, and half of the 95 % interval.

    Runs are paired by seed and by test sample: the mean over seeds of each sample's difference, over samples.
    """
    both = zip(taught, alone, strict=True)
    found = torch.stack([right_answers(one, count) - right_answers(other, count) for one, other in both]).mean(0)
    return 100 * float(found.mean()), 100 * 1.96 * float(found.std()) / math.sqrt(count)


def gain_row(
    what: str, taught: Sequence[Run], alone: Sequence[Run], count: int, bar: float | None = None
) -> dict[str, Any]:
    """Return a row of the gain in points, with its interval and the runs; a bar is met beyond the interval only."""
    points, half = gain(taught, alone, count)
    made = row(
        what, points, "points", bar, "higher", interval=[points - half, points + half],
        taught=[one["test"] for one in taught], alone=[one["test"] for one in alone],
    )  # fmt: skip
    if bar is not None:
        made["met"] = points >= bar and points - half > 0
    return made
