"""Measured: export the original and the compressed network to several runtimes, check, score and time them."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.file.whole import make_folder
from cortado.lowering.graph import has_batch
from cortado.parts.blocks.rows import chooses_rows
from cortado.progress import Progress, quiet
from cortado.report.report import Clock, Exported
from cortado.running.call import call_arguments
from cortado.running.trees import map_tensors, sample_count
from cortado.runtimes.export import export_into
from cortado.runtimes.folder import whole_folder
from cortado.runtimes.runtime import Running, Runtime, Session, rivals
from cortado.runtimes.stream import stream_of
from cortado.runtimes.timing import EAGER, ORIGINAL, Call, check_load, clock, stream_clock
from cortado.runtimes.torch_eager import TorchSession
from cortado.task.data import Data
from cortado.task.task import Task

COMPRESSED = "compressed"


@dataclass
class Measuring:
    """The exported files of both networks, and their rows."""

    task: Task
    data: Data
    runtimes: Sequence[Runtime]
    threads: int = 1
    seconds: float = 5.0
    files: dict[tuple[str, Runtime], Path] = field(default_factory=dict)
    exports: list[Exported] = field(default_factory=list)
    many: bool = False
    """Whether one input would not do, because paths depend on it."""

    def lower_all(self, original: nn.Module, small: nn.Module, kept: Path, folder: Path, progress: Progress) -> None:
        """Export the compressed network for the named runtimes into `kept`, and the original for all rivals too."""
        self.many = chooses_rows(original) or chooses_rows(small)
        everywhere = {runtime.name(): runtime for runtime in (*self.runtimes, *rivals())}
        named = {runtime.name() for runtime in self.runtimes}
        wanted = [(COMPRESSED, small, runtime) for runtime in self.runtimes]
        wanted += [(ORIGINAL, original, runtime) for runtime in everywhere.values() if runtime.name() != EAGER]
        sizes: dict[tuple[str, str], int] = {}
        with progress.bar("export for the clock", len(wanted)) as bar:
            for name, network, runtime in wanted:
                own = (kept if name == COMPRESSED else folder) / runtime.folder_name()
                # The original is only timed, so a few validation samples suffice to check its file.
                data = self.data if name == COMPRESSED else self.task.validation.first(64)
                try:
                    with whole_folder(own) as partial:
                        file, row = export_into(
                            partial, network, self.task.example, runtime, data, self.task.metric, kind=self.task.outputs
                        )
                except BadNetwork:
                    if runtime.name() in named:
                        raise
                    # Not requested, and the original network does not run there: not a rival.
                    bar.advance()
                    continue
                self.files[name, runtime] = own / file.name
                if name == COMPRESSED:
                    self.exports.append(row)
                sizes[name, runtime.name()] = row.size_bytes
                bar.advance()
        self.exports = [replace(row, original_bytes=sizes.get((ORIGINAL, row.runtime))) for row in self.exports]

    def clock(self, original: nn.Module, batch: int) -> Clock:
        """Time all files and the original network in PyTorch, interleaved, on one batch; on many if paths depend on them."""
        if self.many:
            return self.stream_clock(original, batch)
        inputs = batch_of(self.task.example, batch)
        variants: dict[tuple[str, str], Call] = {}
        for (name, runtime), file in self.files.items():
            variants[name, runtime.name()] = bound(runtime.load(file, self.threads), inputs)
        eager, (positional, named) = TorchSession(original.eval(), (), self.threads), call_arguments(inputs)
        variants[ORIGINAL, EAGER] = lambda: eager(*positional, **named)
        return clock(variants, batch, self.threads, self.seconds, self.runtimes[0].name())

    def stream_clock(self, original: nn.Module, batch: int) -> Clock:
        """Time the same on many different inputs."""
        inputs = stream_of(self.data, batch)
        eager = TorchSession(original.eval(), (), self.threads)
        variants: dict[tuple[str, str], list[Call]] = {}
        for (name, runtime), file in self.files.items():
            session = runtime.load(file, self.threads)
            variants[name, runtime.name()] = [bound(session, given) for given in inputs]
        calls = [call_arguments(given) for given in inputs]
        variants[ORIGINAL, EAGER] = [partial(eager, *positional, **named) for positional, named in calls]
        return stream_clock(variants, batch, self.threads, self.seconds, self.runtimes[0].name())


def bound(session: Session, inputs: Any) -> Call:
    """Return a call of the session on these inputs; sample by sample if its file has a batch of one."""
    running = Running(session)
    given = running.in_order(*call_arguments(inputs))
    return lambda: running.outputs(given)


def batch_of(example: Any, batch: int) -> Any:
    """Return a batch of the example's samples, repeated as needed."""
    count = sample_count(example)
    numbers = torch.arange(batch) % count
    return map_tensors(lambda part: part[numbers].contiguous() if has_batch(part, count) else part, example)


def measure(
    original: nn.Module, small: nn.Module, task: Task, runtimes: Sequence[Runtime], *,
    data: Data | None = None, batches: Sequence[int] = (1,), threads: int = 1, seconds: float = 5.0,
    progress: Progress | None = None, folder: Path | None = None,
) -> tuple[tuple[Exported, ...], tuple[Clock, ...]]:  # fmt: skip
    """Export both networks, score the compressed files on `data` (default: the test data) and time all, interleaved.

    Returns a row for each named runtime and a clock for each batch size. The compressed files stay in `folder`, in a folder
    for each runtime. Raises what `export` raises, and BadValue for a batch size or thread count below 1.
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
