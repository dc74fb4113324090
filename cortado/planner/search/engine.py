"""Engine: runs each trial of a search in its own folder, scores it on validation data, and picks the best at the end."""

import logging
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from cortado.engine.compress import compress_within
from cortado.engine.options import RunOptions
from cortado.engine.recipe import read_recipe
from cortado.errors import REFUSALS, BadNetwork, BadTask, BadValue, CortadoError, comes_from_system
from cortado.lowering.lower import lowered
from cortado.methods.needs import Leaves
from cortado.network.profile.profile import profile
from cortado.planner.search.cascades import has_paths
from cortado.planner.search.front import tried
from cortado.planner.search.result import SearchResult
from cortado.planner.search.trials import ALIKE, MINIMISE, NOTE, SearchGoal, Trial, note, noted, reward_of
from cortado.planner.sensitivity.remembering import RememberingTask
from cortado.progress import Progress
from cortado.report.report import Report
from cortado.running.devices import on_cpu
from cortado.runtimes.path_forms import lower_fastest
from cortado.runtimes.runtime import runtime_by_name
from cortado.runtimes.speed import Speed
from cortado.runtimes.stopwatch import Stopwatch
from cortado.task.disjoint import check_disjoint
from cortado.task.known_data import judged_as_new
from cortado.task.limits import MULTIPLY_ADDS
from cortado.task.task import Task

LOG = logging.getLogger(__name__)


@dataclass
class Engine:
    """Runs the trials of one search in `folder`; `task` caches the candidates found on the way.

    `note` says what was noticed of the validation data, "" for nothing.
    """

    network: nn.Module
    task: RememberingTask
    wanted: SearchGoal
    folder: Path
    options: RunOptions
    note: str = ""

    @classmethod
    def of(cls, network: nn.Module, task: Task, minimise: str, options: RunOptions) -> "Engine":
        """Return the engine for a goal.  Raises BadValue for invalid limits, BadTask for overlapping data."""
        options = options.for_task(task)
        if minimise not in MINIMISE:
            raise BadValue(f"search: minimise must be one of {', '.join(MINIMISE)}, got {minimise!r}.")
        if options.folder is None:
            raise BadValue("search: trials need a folder. Pass folder=...")
        wanted = SearchGoal(options.limits, minimise, 1 if task.metric.higher_is_better else -1, task.metric.unit)
        made = cls(on_cpu(network), RememberingTask.of(task), wanted, options.folder, options)
        if wanted.time_counts and not made.runtime:
            raise BadValue("search: latency needs a runtime. Name one: --measure-in onnxruntime.")
        check_disjoint(task)
        judged = judged_as_new(made.network, task)
        if judged.note:
            LOG.warning(judged.note)
        return replace(made, task=RememberingTask.of(judged.task), note=judged.note)

    @property
    def progress(self) -> Progress:
        return self.options.progress

    @property
    def threads(self) -> int:
        """Return the number of threads for timing."""
        return self.options.speed.threads

    @property
    def runtime(self) -> str:
        """Return the name of the runtime that times trials: the limit's, else the first one; "" for none."""
        limit = self.wanted.limit("latency")
        return (limit.runtime if limit is not None else "") or next(
            (one.name() for one in self.options.speed.runtimes), ""
        )

    @property
    def timed(self) -> str:
        """Return runtime and threads as text; "" if latency does not count."""
        return f"{self.runtime}, {self.threads} threads" if self.wanted.time_counts else ""

    @cached_property
    def watch(self) -> Stopwatch | None:
        """Return the stopwatch for trials; None if latency does not count."""
        if not self.wanted.time_counts:
            return None
        return Stopwatch(self.network, self.task, runtime_by_name(self.runtime), self.threads)

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial; numbers begin at 1."""
        return self.folder / "trials" / f"{number:03}"

    def noted(self) -> list[Trial]:
        """Return the trials in the folder, in order; a trial that a killed process left unfinished has no size."""
        folders = sorted(path.parent for path in (self.folder / "trials").glob(f"*/{NOTE}"))
        return [one for one in map(noted, folders) if one is not None]

    def forget(self) -> list[Trial]:
        """Delete the notes of an earlier search and return no trials."""
        for path in (self.folder / "trials").glob(f"*/{NOTE}"):
            path.unlink()
        return []

    def run(self, trial: Trial) -> tuple[Trial, nn.Module | None]:
        """Run a trial's recipe in its folder, record the result or the refusal, and return it with the network.

        Finished stages are not run again.  Raises system errors: a full disk does not count as a refused recipe.
        """
        start, folder, made = time.perf_counter(), self.folder_of(trial.number), None
        before = noted(folder)
        before = trial if before is None or before.recipe != trial.recipe else before
        note(folder, before)
        limits = tuple(limit for limit in self.wanted.limits if limit.what not in ("latency", "file"))
        options = replace(self.options, limits=limits, speed=Speed(), folder=folder, resume=True)
        try:
            over = self.too_costly(trial.recipe)
            if over:
                trial = replace(trial, over=over)
                raise BadValue(f"search: the network misses {' and '.join(over)} before it is trained.")
            done = compress_within(self.network, self.task.for_trial(), trial.recipe, options)
            made, report = done.network, done.report
            trial = self.judged(trial, made, report, before)
        except refusals(trial) as error:
            if comes_from_system(error):
                raise
            trial = replace(trial, failed=str(error))
        trial = replace(trial, seconds=max(time.perf_counter() - start, before.seconds))
        note(folder, trial)
        LOG.info("trial %d (%s) %s", trial.number, trial.text(), trial.outcome_text(self.wanted.metric_unit))
        return trial, made

    def file_bytes(self, made: nn.Module) -> int | None:
        """Return the bytes of the network's file for the runtime whose file is limited; None without such a limit."""
        limit = self.wanted.limit("file")
        if limit is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            low, example = lowered(made, self.task.example), self.task.example
            lower_fastest(runtime_by_name(limit.runtime), made, low, example, self.task.validation, Path(folder))
            return sum(path.stat().st_size for path in Path(folder).iterdir())

    def judged(self, trial: Trial, made: nn.Module, report: Report, before: Trial) -> Trial:
        """Return the trial with its results; latency is measured unless this runtime timed it before."""
        last, taken = report.stages[-1], None
        if not math.isfinite(last.score):
            return replace(trial, failed=f"the score is {last.score}")
        if self.watch is not None:
            taken = before.latency_ms if before.done and before.timed == self.timed else self.watch.ms(made)
        trial = replace(
            trial, size_bytes=last.size_bytes, score=last.score, latency_ms=taken, timed=self.timed,
            file_bytes=self.file_bytes(made), multiply_adds=self.multiply_adds(made),
        )  # fmt: skip
        narrow = []
        for limit in self.wanted.limits:
            compared = report.shifts[limit.shift] if limit.shift else report.test
            over, error = self.wanted.excess(limit, trial, compared)
            trial = replace(trial, over={**trial.over, limit.text: over}, error=max(error, trial.error))
            if limit.what == "score" and 0 < over * max(abs(compared.original), 1e-9) <= error:
                narrow.append(limit.text)
        trial = replace(trial, narrowly=bool(narrow) and trial.missed == narrow)
        share = trial.size_bytes / report.original_bytes
        return replace(trial, reward=reward_of(trial, share, report.test.original, self.wanted.sign))

    def multiply_adds(self, made: nn.Module) -> float | None:
        """Return the multiply-adds of one sample, where they are limited."""
        limited = self.wanted.limit(MULTIPLY_ADDS) is not None
        return float(profile(made, self.task.example).total(MULTIPLY_ADDS).value) if limited else None

    def too_costly(self, recipe: Any) -> dict[str, float]:
        """Return the excess over the limits that a network misses before it is trained, by their text; empty for none.

        Multiply-adds and latency of a student do not change while it only trains, so that no training is spent on it.
        """
        stages = read_recipe(recipe).stages
        if not stages or not stages[0].restarts or any(set(one.leaves) - {Leaves.FLOATS} for one in stages[1:]):
            return {}
        student = stages[0].architecture(self.network).eval()
        found = {}
        for limit in self.wanted.limits:
            if limit.what == MULTIPLY_ADDS:
                found[limit.text] = (self.multiply_adds(student) or 0.0) / limit.value - 1
            if limit.what == "latency" and self.watch is not None:
                found[limit.text] = self.watch.ms(student) / (ALIKE * limit.value) - 1
        return {text: over for text, over in found.items() if over > 0}

    def result(self, trials: Sequence[Trial], advice: str = "") -> SearchResult:
        """Return the best trial's network, with a report on test data.  Raises BadNetwork if no trial succeeded."""
        if not any(one.done for one in trials):
            last = f"; the last one: {trials[-1].failed}" if trials else "."
            raise BadNetwork(
                f"search: none of {len(trials)} trials succeeded{last} Change the ranges, or loosen the limits."
            )
        best = self.wanted.best(trials)
        options = replace(self.options, folder=self.folder_of(best.number), resume=True)
        made = compress_within(self.network, self.task, best.recipe, options)
        advice = advice or ("" if made.report.met else self.wanted.advice(best, trials))
        notes = (self.note,) if self.note else ()
        front = tuple(tried(one, one is best) for one in trials if one.done)
        report = replace(made.report, front=front, warnings=(*notes, *made.report.warnings))
        return SearchResult(replace(made, report=report), tuple(trials), self.wanted.front(trials), best, advice, notes)


def refusals(trial: Trial) -> tuple[type[CortadoError], ...]:
    """Return the errors that say no more than that this recipe cannot be.

    Data that a network knows by heart, or members that do not fit it, only hinder recipes whose paths depend on the input.
    """
    return (*REFUSALS, BadNetwork, BadTask) if has_paths(trial) else REFUSALS
