"""Engine: runs the trials of a search, each in a folder of its own, judged on validation data alone; and the best at the end."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from cortado.devices import on_cpu
from cortado.engine.compress import compress_within
from cortado.engine.options import RunOptions
from cortado.errors import REFUSALS, BadNetwork, BadValue, comes_from_system
from cortado.planner.search.front import tried
from cortado.planner.search.result import SearchResult
from cortado.planner.search.trials import MINIMISE, NOTE, Trial, Wanted, note, noted
from cortado.planner.sensitivity.candidates import RememberingTask
from cortado.progress import Progress
from cortado.report.report import Report
from cortado.runtimes.runtime import runtime_by_name
from cortado.runtimes.speed import Speed
from cortado.runtimes.stopwatch import Stopwatch
from cortado.task.disjoint import check_disjoint
from cortado.task.task import Task


@dataclass
class Engine:
    """The trials of one search in `folder`; what is found out about a network on its way is kept with `task`."""

    network: nn.Module
    task: RememberingTask
    wanted: Wanted
    folder: Path
    options: RunOptions

    @classmethod
    def of(cls, network: nn.Module, task: Task, minimise: str, options: RunOptions) -> "Engine":
        """Return the engine for a goal.  Raises BadValue for limits that cannot be kept, BadTask for data not apart."""
        read = options.check_score(task.metric).limits
        if minimise not in MINIMISE:
            raise BadValue(f"search: minimise must be one of {', '.join(MINIMISE)}, got {minimise!r}.")
        if options.folder is None:
            raise BadValue("search: trials are kept in a folder. Pass folder=...")
        wanted = Wanted(read, minimise, 1 if task.metric.higher_is_better else -1, task.metric.unit)
        made = cls(on_cpu(network), RememberingTask.of(task), wanted, options.folder, options)
        if wanted.time_counts and not made.runtime:
            raise BadValue("search: latency is measured in a runtime. Say in which: --measure-in onnxruntime.")
        check_disjoint(task)
        return made

    @property
    def progress(self) -> Progress:
        return self.options.progress

    @property
    def threads(self) -> int:
        """Return how many threads times are taken with."""
        return self.options.speed.threads

    @property
    def runtime(self) -> str:
        """The name of the runtime in which trials are timed: that of the limit, or the first one; "" for none."""
        limit = self.wanted.limit("latency")
        return (limit.runtime if limit is not None else "") or next(
            (one.name() for one in self.options.speed.runtimes), ""
        )

    @property
    def timed(self) -> str:
        """Where trials are timed, in words; "" where time does not count."""
        return f"{self.runtime}, {self.threads} threads" if self.wanted.time_counts else ""

    @cached_property
    def watch(self) -> Stopwatch | None:
        """What times them."""
        if not self.wanted.time_counts:
            return None
        return Stopwatch(self.network, self.task, runtime_by_name(self.runtime), self.threads)

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial; numbers begin at 1."""
        return self.folder / "trials" / f"{number:03}"

    def noted(self) -> list[Trial]:
        """Return the trials that the folder holds, in order; those that a killed process had under way have no size."""
        folders = sorted(path.parent for path in (self.folder / "trials").glob(f"*/{NOTE}"))
        return [one for one in map(noted, folders) if one is not None]

    def forget(self) -> list[Trial]:
        """Let the notes of an earlier search go, whose trials are not among those of this one, and return none."""
        for path in (self.folder / "trials").glob(f"*/{NOTE}"):
            path.unlink()
        return []

    def run(self, trial: Trial) -> tuple[Trial, nn.Module | None]:
        """Run a trial's recipe in its folder, and note what came out, or why nothing did; and the network that it made.

        What was finished before is not done again.  Raises what the system raises: a full disk is no refused recipe.
        """
        start, folder, made = time.perf_counter(), self.folder_of(trial.number), None
        before = noted(folder)
        before = trial if before is None or before.recipe != trial.recipe else before
        note(folder, before)
        limits = tuple(limit for limit in self.wanted.limits if limit.what != "latency")
        options = replace(self.options, limits=limits, speed=Speed(), folder=folder, resume=True)
        try:
            done = compress_within(self.network, self.task.for_trial(), trial.recipe, options)
            made, report = done.network, done.report
            trial = self.judged(trial, made, report, before)
        except REFUSALS as error:
            if comes_from_system(error):
                raise
            trial = replace(trial, failed=str(error))
        trial = replace(trial, seconds=max(time.perf_counter() - start, before.seconds))
        note(folder, trial)
        return trial, made

    def judged(self, trial: Trial, made: nn.Module, report: Report, before: Trial) -> Trial:
        """Return the trial with what came out; its time only where it was not taken before, in this runtime."""
        last, taken = report.stages[-1], None
        if not math.isfinite(last.score):
            return replace(trial, failed=f"the score is {last.score}")
        if self.watch is not None:
            taken = before.latency_ms if before.done and before.timed == self.timed else self.watch.ms(made)
        trial = replace(trial, size_bytes=last.size_bytes, score=last.score, latency_ms=taken, timed=self.timed)
        for limit in self.wanted.limits:
            over, error = self.wanted.excess(limit, trial, report.test)
            trial = replace(trial, over={**trial.over, limit.text: over}, error=max(error, trial.error))
            if limit.what == "score":
                trial = replace(trial, narrowly=0 < over * max(abs(report.test.original), 1e-9) <= error)
        return trial

    def result(self, trials: Sequence[Trial], advice: str = "") -> SearchResult:
        """Return the best trial's network, with a report on test data.  Raises BadNetwork where none was done."""
        if not any(one.done for one in trials):
            last = f"; the last one: {trials[-1].failed}" if trials else "."
            raise BadNetwork(
                f"search: none of {len(trials)} trials could be carried out{last} Change the ranges, or loosen the limits."
            )
        best = self.wanted.best(trials)
        options = replace(self.options, folder=self.folder_of(best.number), resume=True)
        made = compress_within(self.network, self.task, best.recipe, options)
        advice = advice or ("" if made.report.met else self.wanted.advice(best, trials))
        report = replace(made.report, front=tuple(tried(one, one is best) for one in trials if one.done))
        made = replace(made, report=report)
        return SearchResult(made, tuple(trials), self.wanted.front(trials), best, advice)
