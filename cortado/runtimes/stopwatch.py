"""Stopwatch: time networks in a runtime, each interleaved with the original."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from cortado.lowering.lower import lowered
from cortado.parts.blocks.rows import chooses_rows
from cortado.runtimes.measured import batch_of, bound
from cortado.runtimes.path_forms import lower_fastest
from cortado.runtimes.runtime import Runtime, Session
from cortado.runtimes.stream import MOST_INPUTS, stream_of, streamed
from cortado.runtimes.timing import Call, interleaved, is_noisy, speed_ratio
from cortado.task.task import Task

SECONDS, TRIES = 1.5, 3
FEWEST_INPUTS = 50


@dataclass
class Stopwatch:
    """Milliseconds per batch (of one by default) in `runtime` with `threads` threads.

    A network's time is the original's, measured once, over its interleaved speed-up, so that a temporary slowdown of the
    machine affects both. Where paths depend on the input, both run through different validation samples, and the time is
    the mean. Raises what exporting raises.
    """

    original: nn.Module
    task: Task
    runtime: Runtime
    threads: int = 1
    seconds: float = SECONDS
    batch: int = 1

    def __post_init__(self) -> None:
        self.inputs = batch_of(self.task.example, self.batch)
        self.original_session = self.session(self.original)
        self.original_call = bound(self.original_session, self.inputs)
        if chooses_rows(self.original):
            taken = streamed([self.stream_calls(self.original_session, FEWEST_INPUTS)], self.seconds)
            self.original_ms = float(np.median(taken.mean(2)))
        else:
            self.original_ms = float(np.median(interleaved([self.original_call], self.seconds)))

    def session(self, network: nn.Module) -> Session:
        """Return the exported network, loaded; where paths depend on the input, in its fastest form."""
        with tempfile.TemporaryDirectory() as folder:
            low, example = lowered(network, self.task.example), self.task.example
            file, _ = lower_fastest(self.runtime, network, low, example, self.task.validation, Path(folder))
            return self.runtime.load(file, self.threads)

    def stream_calls(self, session: Session, count: int) -> list[Call]:
        """Return a call on each of `count` batches of validation samples, or of as many as there are."""
        return [bound(session, given) for given in stream_of(self.task.validation, self.batch, count)]

    def ms(self, network: nn.Module) -> float:
        """Return the milliseconds of a network; on a noisy machine it measures again and takes the quietest try."""
        session, found = self.session(network), []
        streams = chooses_rows(network) or chooses_rows(self.original)
        for _ in range(TRIES):
            taken = self.stream_times(session) if streams else self.times(session)
            again = speed_ratio(taken[:, 0], taken[:, 2])
            found.append((again.high - again.low + abs(again.median - 1), speed_ratio(taken[:, 0], taken[:, 1]).median))
            if not is_noisy(again):
                break
        return self.original_ms / min(found)[1]

    def times(self, session: Session) -> np.ndarray:
        """Return milliseconds (rounds, 3) on one batch: the original, this network, the original again."""
        return interleaved([self.original_call, bound(session, self.inputs), self.original_call], self.seconds)

    def stream_times(self, session: Session) -> np.ndarray:
        """Return the same, each the mean over different inputs: as many as the original runs in the seconds."""
        count = min(MOST_INPUTS, max(FEWEST_INPUTS, int(1000 * self.seconds / self.original_ms)))
        original, own = self.stream_calls(self.original_session, count), self.stream_calls(session, count)
        return streamed([original, own, original], self.seconds).mean(2)
