"""Stopwatch: time networks in a runtime, each interleaved with the original."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from cortado.lowering.lower import lowered
from cortado.runtimes.measured import batch_of, bound
from cortado.runtimes.runtime import Runtime
from cortado.runtimes.timing import Call, interleaved, is_noisy, speed_ratio
from cortado.task.task import Task

SECONDS, TRIES = 1.5, 3


@dataclass
class Stopwatch:
    """Milliseconds per batch (of one by default) in `runtime` with `threads` threads.

    A network's time is the original's, measured once, over its interleaved speed-up, so that a temporary slowdown of the
    machine affects both. Raises what exporting raises.
    """

    original: nn.Module
    task: Task
    runtime: Runtime
    threads: int = 1
    seconds: float = SECONDS
    batch: int = 1

    def __post_init__(self) -> None:
        self.inputs = batch_of(self.task.example, self.batch)
        self.original_call = self.call(self.original)
        self.original_ms = float(np.median(interleaved([self.original_call], self.seconds)))

    def call(self, network: nn.Module) -> Call:
        """Return a call of the exported network on one batch."""
        with tempfile.TemporaryDirectory() as folder:
            file = self.runtime.lower(lowered(network, self.task.example), self.task.example, Path(folder))
            return bound(self.runtime.load(file, self.threads), self.inputs)

    def ms(self, network: nn.Module) -> float:
        """Return the milliseconds of a network; on a noisy machine it measures again and takes the quietest try."""
        call, found = self.call(network), []
        for _ in range(TRIES):
            taken = interleaved([self.original_call, call, self.original_call], self.seconds)
            again = speed_ratio(taken[:, 0], taken[:, 2])
            found.append((again.high - again.low + abs(again.median - 1), speed_ratio(taken[:, 0], taken[:, 1]).median))
            if not is_noisy(again):
                break
        return self.original_ms / min(found)[1]
