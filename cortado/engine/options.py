"""Options of a run: limits, runtimes, folder, parsed once and passed on as one value."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from cortado.errors import BadNetwork
from cortado.file.whole import check_writable
from cortado.network.view import working_copy
from cortado.parts.part import Part
from cortado.progress import Progress, quiet
from cortado.running.brought import accept
from cortado.runtimes.export import refusal_of
from cortado.runtimes.speed import Speed, speed_wanted
from cortado.task.limits import Limit, limit_of_kind, limits_of_metric, read_limits
from cortado.task.shifts import check_shifts
from cortado.task.task import Task

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """The options of a run.

    `channel_block` is the largest block of channels of the runtimes to measure in, None without them. Finished stages are
    stored in `folder`, and `resume` continues after the last one. `forms` are the user's own form
    classes, needed to resume. `refusals`: a sentence for each runtime that was left out because it lacks something.
    """

    limits: tuple[Limit, ...] = ()
    speed: Speed = field(default_factory=Speed)
    folder: Path | None = None
    resume: bool = False
    progress: Progress = field(default_factory=quiet)
    forms: tuple[type[Part], ...] = ()
    channel_block: int | None = None
    refusals: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, limits: Sequence[str] = (), *, folder: str | Path | None = None, resume: bool = False,
        progress: Progress | None = None, forms: Sequence[type[Part]] = (), runtimes: Sequence[str] = (),
        batches: Sequence[int] = (1,), threads: int = 1, command: str = "compress",
    ) -> "RunOptions":  # fmt: skip
        """Parse options ("size <= 100 KB", "onnxruntime").

        Raises BadValue for invalid limits, batches or threads and for a folder that cannot be written, MissingPackage for a
        runtime that is not installed.
        """
        read_as = read_limits(limits)
        speed = speed_wanted(runtimes, read_as, batches, threads)
        if folder is not None:
            check_writable(Path(folder), command)
        place = None if folder is None else Path(folder)
        block = max((runtime.channel_block for runtime in speed.runtimes), default=None)
        return cls(read_as, speed, place, resume, progress or quiet(), tuple(forms), block)

    def for_task(self, task: Task) -> "RunOptions":
        """Return the options with limits as they hold for the task's metric.

        Raises BadValue for a limit in another unit than the metric's, or under a shift that does not apply to the data.
        """
        check_shifts(self.limits, task)
        return replace(self, limits=limits_of_metric(self.limits, task.metric))

    def for_network(self, network: nn.Module, task: Task) -> "RunOptions":
        """Return the options without runtimes that cannot run the original: found out before the work and not after it.

        Raises BadNetwork for the first runtime, which times trials and limits, and for those that limits name: without them
        nothing would be measured as asked.
        """
        if not self.speed.runtimes:
            return self
        accept(network, "compress")
        original, named = working_copy(network, alias=True).eval(), {limit.runtime for limit in self.limits}
        refusals = {one.name(): refusal_of(original, task, one) for one in self.speed.runtimes}
        left = tuple(one for one in self.speed.runtimes if not refusals[one.name()])
        for name, sentence in refusals.items():
            if sentence and (name in named or name == self.speed.runtimes[0].name()):
                raise BadNetwork(f"{sentence} Nothing was done yet.")
        sentences = tuple(f"{one} Nothing is measured there." for one in refusals.values() if one)
        for sentence in sentences:
            LOG.warning(sentence)
        block = max((one.channel_block for one in left), default=None)
        speed = replace(self.speed, runtimes=left)
        return replace(self, speed=speed, channel_block=block, refusals=(*self.refusals, *sentences))

    @property
    def exports(self) -> Path | None:
        """Return the folder of measured runtime files until a bundle takes them; None without runtimes or folder."""
        return self.folder / "exports" if self.folder and self.speed.runtimes else None

    def limit(self, what: str) -> Limit | None:
        """Return the limit of a kind ("size", "score", "latency"), or None."""
        return limit_of_kind(self.limits, what)
