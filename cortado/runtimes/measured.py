"""Measured: the plain and the compressed network in several runtimes, checked, scored and timed in turns."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.file.whole import make_folder
from cortado.lowering.graph import has_batch, positional
from cortado.progress import Progress, quiet
from cortado.report.report import Clock, Exported
from cortado.runtimes.export import export_into
from cortado.runtimes.folder import whole_folder
from cortado.runtimes.runtime import Running, Runtime, Session, rivals
from cortado.runtimes.timing import EAGER, ORIGINAL, Call, check_load, clock
from cortado.runtimes.torch_eager import TorchSession
from cortado.task.task import Data, Task

COMPRESSED = "compressed"


@dataclass
class Measuring:
    """The files of both networks, loaded once for each number of threads."""

    task: Task
    data: Data
    runtimes: Sequence[Runtime]
    threads: int = 1
    seconds: float = 5.0
    files: dict[tuple[str, Runtime], Path] = field(default_factory=dict)
    exports: list[Exported] = field(default_factory=list)

    def lower_all(self, original: nn.Module, small: nn.Module, kept: Path, folder: Path, progress: Progress) -> None:
        """Files of the compressed network for the runtimes named, into `kept`, of the original for every rival as well."""
        everywhere = {runtime.name(): runtime for runtime in (*self.runtimes, *rivals())}
        named = {runtime.name() for runtime in self.runtimes}
        wanted = [(COMPRESSED, small, runtime) for runtime in self.runtimes]
        wanted += [(ORIGINAL, original, runtime) for runtime in everywhere.values() if runtime.name() != EAGER]
        sizes: dict[tuple[str, str], int] = {}
        with progress.bar("export for the clock", len(wanted)) as bar:
            for name, network, runtime in wanted:
                own = (kept if name == COMPRESSED else folder) / runtime.name()
                # The original network is only timed, so the validation data will do to see that its file is right.
                data = self.data if name == COMPRESSED else self.task.validation.first(64)
                try:
                    with whole_folder(own) as partial:
                        file, row = export_into(partial, network, self.task.example, runtime, data, self.task.metric)
                except BadNetwork:
                    if runtime.name() in named:
                        raise
                    # Nobody asked for this one: where the original network cannot run, it is no rival.
                    bar.advance()
                    continue
                self.files[name, runtime] = own / file.name
                if name == COMPRESSED:
                    self.exports.append(row)
                sizes[name, runtime.name()] = row.size_bytes
                bar.advance()
        self.exports = [replace(row, original_bytes=sizes.get((ORIGINAL, row.runtime))) for row in self.exports]

    def clock(self, original: nn.Module, batch: int) -> Clock:
        """All files and the original network itself, in turns, on one batch."""
        inputs = batch_of(self.task.example, batch)
        variants: dict[tuple[str, str], Call] = {}
        for (name, runtime), file in self.files.items():
            variants[name, runtime.name()] = bound(runtime.load(file, self.threads), inputs)
        variants[ORIGINAL, EAGER] = bound(TorchSession(original.eval(), (), self.threads), inputs)
        return clock(variants, batch, self.threads, self.seconds, self.runtimes[0].name())


def bound(session: Session, inputs: tuple[Tensor, ...]) -> Call:
    """A call of the session on these inputs; sample by sample where its file holds one."""
    running = Running(session)
    return lambda: running.forward(*inputs)


def batch_of(example: Any, batch: int) -> tuple[Tensor, ...]:
    """The example's samples over and over, as many as `batch`."""
    parts = positional(example)
    count = len(parts[0])
    numbers = torch.arange(batch) % count
    return tuple(part[numbers].contiguous() if has_batch(part, count) else part for part in parts)


def measure(
    original: nn.Module, small: nn.Module, task: Task, runtimes: Sequence[Runtime], *,
    data: Data | None = None, batches: Sequence[int] = (1,), threads: int = 1, seconds: float = 5.0,
    progress: Progress | None = None, folder: Path | None = None,
) -> tuple[tuple[Exported, ...], tuple[Clock, ...]]:  # fmt: skip
    """Export both networks, score the compressed files on `data` (the test data) and time all in turns.

    The compressed files stay in `folder`, those of each runtime in a folder of its name, as they were scored and timed.
    Gives one row for each runtime named, and one clock for each batch size. Raises what `export` raises, and BadValue
    for an empty batch or less than one thread.
    """
    check_load("timing", batches, threads)
    measuring = Measuring(task, task.test if data is None else data, runtimes, threads, seconds)
    with tempfile.TemporaryDirectory() as made:
        rivals_in, kept = Path(made) / "original", folder or Path(made) / COMPRESSED
        for one in (rivals_in, kept):
            make_folder(one)
        measuring.lower_all(original, small, kept, rivals_in, progress or quiet())
        clocks = tuple(measuring.clock(original, batch) for batch in batches)
    return tuple(measuring.exports), clocks
