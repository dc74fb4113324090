"""Stopwatch: the time of networks in a runtime, each in turns with the original, which is taken once."""

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
    """Milliseconds of a batch, of one by default, in `runtime`, with so many `threads`.

    A network's time is the original network's, taken at the beginning, over how many times faster it is, taken in turns: what
    slows the machine down for a while slows both. Raises what exporting raises.
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
        """The network's own file, loaded, on one batch."""
        with tempfile.TemporaryDirectory() as folder:
            file = self.runtime.lower(lowered(network, self.task.example), self.task.example, Path(folder))
            return bound(self.runtime.load(file, self.threads), self.inputs)

    def ms(self, network: nn.Module) -> float:
        """What this network takes; measured again where the machine was restless, the quietest counts."""
        call, found = self.call(network), []
        for _ in range(TRIES):
            taken = interleaved([self.original_call, call, self.original_call], self.seconds)
            again = speed_ratio(taken[:, 0], taken[:, 2])
            found.append((again.high - again.low + abs(again.median - 1), speed_ratio(taken[:, 0], taken[:, 1]).median))
            if not is_noisy(again):
                break
        return self.original_ms / min(found)[1]
