"""Goal: limits in; recipes, recovered as far as the time allows, are tried until the best network that keeps them is found."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado import quantities as units
from cortado.brought import accept, blaming
from cortado.devices import on_cpu, training_device
from cortado.engine.compress import compress
from cortado.engine.fingerprints import json_data
from cortado.errors import REFUSALS, BadValue, comes_from_system
from cortado.eval_mode import eval_mode
from cortado.file.whole import check_writable
from cortado.planner.allocate.mix import corrected
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve, size_accuracy_curve
from cortado.planner.search.cache import Memory, mark_of
from cortado.planner.search.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.search.front import tried
from cortado.planner.search.proposals import Proposals
from cortado.planner.search.shapes import CHANNELS, Explorer, Shape, Shapes, cuts_for, tail_of
from cortado.planner.search.trials import MINIMISE, Trial, Wanted, note, noted, surely
from cortado.progress import Progress, quiet
from cortado.report.report import Report
from cortado.runtimes.runtime import runtime_by_name
from cortado.runtimes.speed import speed_wanted
from cortado.runtimes.stopwatch import Stopwatch
from cortado.task.disjoint import check_disjoint
from cortado.task.limits import Limit, check_unit, read_limits
from cortado.task.measure import outputs_of
from cortado.task.task import Task, to_device

MOST_EPOCHS, SHARE_OF_TIME = 20.0, 0.3
"""Of the recovery of one trial."""
SHARE_TO_EXPLORE = 0.2
"""Of the time, for finding out what can be cut."""


@dataclass(frozen=True)
class GoalResult:
    """The best network, its report with the test result, and every trial; `advice` says what binds where a limit was missed."""

    network: nn.Module
    report: Report
    trials: tuple[Trial, ...]
    best: Trial
    advice: str = ""

    def text(self) -> str:
        """The front for people: every trial, smallest first, and what binds where a limit was missed."""
        unit = self.report.metric_unit
        done = sorted((one for one in self.trials if one.done), key=lambda one: one.size_bytes)
        wide = max(24, *(len(one.text()) + 2 for one in done))
        timed = any(one.latency_ms is not None for one in done)
        head = f"{'one sample':>14}" if timed else ""
        lines = [f"{'tried':<{wide}}{'file':>10}{head}{'score on validation data':>24}   limits there"]
        for one in done:
            taken = f"{'–' if one.latency_ms is None else units.time_text(one.latency_ms):>14}" if timed else ""
            kept, best = kept_text(one), "  <- taken" if one is self.best else ""
            size = units.size_text(one.size_bytes)
            lines.append(f"{one.text():<{wide}}{size:>10}{taken}{f'{one.score:.2f} {unit}':>24}   {kept}{best}")
        return "\n".join([*lines, *([f"\n{self.advice}"] if self.advice else [])])


def kept_text(trial: Trial) -> str:
    """Whether a trial keeps all limits."""
    if trial.keeps_narrowly:
        return "kept by luck, perhaps"
    return "kept" if trial.keeps_all else "missed"


def reach(
    network: nn.Module,
    task: Task,
    limits: Sequence[str],
    *,
    minimise: str = "size",
    time_limit: str = "30 min",
    folder: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
    runtimes: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    threads: int = 1,
) -> GoalResult:
    """The smallest network (`minimise` "size"), the fastest ("latency") or the one that loses least ("loss") under `limits`.

    Where time counts, cuts are timed in the runtime of the limit, or the first of `runtimes`, in floats and in whole
    numbers; where bytes count, weights are form the forecast says. Each trial recovers with the network itself as
    teacher and is kept in `folder`; `resume` goes on with them. All are compared on the task's validation data; the test data's
    are used once, for the best. Without a limit of the score, "size" means "loss". Trials begin as long as `time_limit`
    ("30 min") lasts. `runtimes`, `batches` and `threads` are as in compress, for the best. Raises BadValue for limits or a
    budget that say nothing, and what compress raises.
    """
    brought = accept(network, "plan")
    read_as = read_limits(limits)
    check_unit(read_as, task.metric)
    if minimise == "size" and read_as and not any(one.what == "score" for one in read_as):
        # The smallest file of all knows nothing: within limits of bytes or time the best network is meant.
        minimise = "loss"
    wanted = Wanted(read_as, minimise, 1 if task.metric.higher_is_better else -1, task.metric.unit)
    check_goal(wanted, runtimes)
    speed = speed_wanted(runtimes, read_as, batches, threads)
    check_writable(Path(folder), "compress")
    check_disjoint(task)
    network = on_cpu(network)
    timed = wanted.limit("latency")
    where = timed.runtime if timed is not None and timed.runtime else next(iter(runtimes), "")
    seconds = units.read(time_limit, "time") / 1000
    search = Search(network, task, wanted, seconds, Path(folder), progress or quiet(), where, speed.threads)
    with blaming(brought):
        search.run(resume)
    best = wanted.best(search.trials)
    small, report = compress(
        network, task, best.recipe, limits=limits, folder=search.folder_of(search.trials.index(best)), resume=True,
        progress=search.progress, runtimes=runtimes, batches=batches, threads=threads,
    )  # fmt: skip
    advice = search.slower(best) or ("" if report.met else wanted.advice(best, search.trials))
    report = replace(report, front=tuple(tried(one, one is best) for one in search.trials if one.done))
    return GoalResult(small, report, tuple(search.trials), best, advice)


def check_goal(wanted: Wanted, runtimes: Sequence[str]) -> None:
    """Raises BadValue for limits under which there is nothing to make small, or fast."""
    kinds = {limit.what for limit in wanted.limits}
    if wanted.minimise not in MINIMISE or not wanted.limits:
        raise BadValue(
            f"goal: minimise must be one of {', '.join(MINIMISE)} under one limit or more, got {wanted.minimise!r} and "
            f"{len(wanted.limits)} limits. Write, for example, --limit 'score >= -0.5 %' --minimise size."
        )
    if wanted.minimise == "loss" and not kinds & {"size", "latency"}:
        raise BadValue(
            "goal: the least loss is the original network's. Limit the size or the latency too: --limit 'size <= 100 KB'."
        )
    if wanted.minimise == "latency" and "score" not in kinds:
        raise BadValue("goal: what is fastest knows nothing. Limit the score too: --limit 'score >= -0.5 %'.")
    if wanted.minimise == "latency" and not runtimes and wanted.limit("latency") is None:
        raise BadValue("goal: the least latency in which runtime? Say where to time: --measure-in onnxruntime.")


@dataclass
class Search:
    """The trials of one goal; times are taken in `runtime` where they count."""

    network: nn.Module
    task: Task
    wanted: Wanted
    seconds: float
    folder: Path
    progress: Progress
    runtime: str = ""
    threads: int = 1
    trials: list[Trial] = field(default_factory=list)
    begun: list[Trial] = field(default_factory=list)

    def run(self, resume: bool) -> None:
        """Trials until time or ideas are at an end; those of an interrupted run come first, and their time counts."""
        start = time.perf_counter()
        self.begun = noted(self.folder) if resume else []
        self.watch = self.stopwatch()
        self.tail = tail_of(self.network, self.task) if self.wanted.bytes_count else ""
        memory = Memory(
            self.folder,
            mark_of(self.network, self.task, CANDIDATE_RECIPES, cuts_for(self.runtime, self.threads), self.tail),
        )
        # What was left out for want of time must not be missing when there is more.
        shapes = memory.shapes(self.shapes, self.seconds if self.wanted.time_counts else 0.0)
        ideas = Proposals(self.wanted, shapes.found, self.curve(memory, shapes.found[0]), self.tail, self.cut_more)
        for one in self.begun:
            made = self.tried(json_data(one.recipe), one.shape, one)
            ideas.curve = corrected(ideas.curve, self.trials[-1], made, self.network, self.task)
        epoch = memory.epoch(self.seconds_of_epoch)
        start -= sum(memory.spent) + sum(one.seconds for one in self.begun if one.done)
        while not self.trials or time.perf_counter() - start < self.seconds:
            left = min(self.seconds - (time.perf_counter() - start), SHARE_OF_TIME * self.seconds)
            found = ideas.next(self.trials, partial(recovery, left, epoch))
            if found is None:
                break
            made = self.tried(found.recipe, found.shape)
            ideas.curve = corrected(ideas.curve, self.trials[-1], made, self.network, self.task)
        if not any(one.done for one in self.trials):
            said = self.trials[0].failed if self.trials else "No shape and no mix of the network is within the limits."
            raise BadValue(
                f"goal: nothing could be tried. {said} Loosen the limits, or write a recipe of your own: --recipe."
            )

    def slower(self, best: Trial) -> str:
        """What to say where speed was asked for and the original network has it."""
        if self.wanted.minimise != "latency" or self.watch is None or (best.latency_ms or 0.0) < self.watch.original_ms:
            return ""
        return (
            f"Nothing that was tried is faster in {self.runtime} than the original network, which takes "
            f"{units.time_text(self.watch.original_ms)}. Leave it as it is, allow more loss, or give more time."
        )

    def stopwatch(self) -> Stopwatch | None:
        if not self.wanted.time_counts:
            return None
        return Stopwatch(self.network, self.task, runtime_by_name(self.runtime), self.threads)

    def shapes(self) -> Shapes:
        """What can be cut where time counts; else the network as it is."""
        explorer = Explorer(self.network, self.task, self.watch, self.tail)
        return explorer.explored(seconds=SHARE_TO_EXPLORE * self.seconds, progress=self.progress)

    def cut_more(self) -> tuple[Shape, ...]:
        """What else can be cut, where only bytes count."""
        explorer = Explorer(self.network, self.task, None, self.tail)
        return explorer.explored(CHANNELS[:2], progress=self.progress).found

    def curve(self, memory: Memory, original_shape: Shape) -> SizeAccuracyCurve | None:
        """What mixes of the original shape cost, with the tail in the file."""
        if not self.wanted.bytes_count:
            return None
        found = memory.size_accuracy_curve(
            lambda: size_accuracy_curve(self.network, self.network, self.task, progress=self.progress)
        )
        return replace(found, rest_bytes=original_shape.rest_bytes)

    def tried(self, recipe: dict[str, Any], shape: str, before: Trial | None = None) -> nn.Module | None:
        """Run a recipe in its own folder, judged on validation data alone, and note what came out, or why nothing did."""
        number, start = len(self.trials), time.perf_counter()
        waiting = self.begun[number + 1 :]
        note(self.folder, [*self.trials, before or Trial(json_data(recipe), shape), *waiting])
        texts = [limit.text for limit in self.wanted.limits if limit.what != "latency"]
        trial, made = Trial(json_data(recipe), shape), None
        try:
            made, report = compress(
                self.network, self.task.for_trial(), recipe, limits=texts, folder=self.folder_of(number), resume=True,
                progress=self.progress,
            )  # fmt: skip
            trial = self.judged(trial, made, report, before)
        except REFUSALS as error:
            if comes_from_system(error):
                raise
            trial = replace(trial, failed=str(error))
        spent = time.perf_counter() - start
        self.trials.append(replace(trial, seconds=max(spent, before.seconds if before else 0.0)))
        note(self.folder, [*self.trials, *waiting])
        return made

    def judged(self, trial: Trial, made: nn.Module, report: Report, before: Trial | None) -> Trial:
        """The trial with what came out; its time only where it was not taken before, in this runtime."""
        last, taken = report.stages[-1], None
        if self.watch is not None:
            again = before is not None and before.timed == self.timed
            taken = before.latency_ms if before and again else self.watch.ms(made)
        met = {line.limit: bool(line.met) for line in report.lines if line.limit} | self.timely(taken)
        limit, error, narrowly = self.wanted.limit("score"), 0.0, False
        if limit is not None:
            kept, error = surely(limit, report.test, self.wanted.sign)
            narrowly, met[limit.text] = met[limit.text] and not kept, kept
        return replace(
            trial, size_bytes=last.size_bytes, score=last.score, latency_ms=taken, met=met, timed=self.timed,
            error=error, narrowly=narrowly,
        )  # fmt: skip

    def timely(self, latency_ms: float | None) -> dict[str, bool]:
        """Whether a limit of time is kept."""
        limit: Limit | None = self.wanted.limit("latency")
        return {} if limit is None else {limit.text: latency_ms is not None and latency_ms <= limit.value}

    @property
    def timed(self) -> str:
        """Where times are taken; "" where they do not count."""
        return f"{self.runtime}, {self.threads} threads" if self.wanted.time_counts else ""

    def folder_of(self, number: int) -> Path:
        return self.folder / "trials" / f"{number + 1:02}"

    def seconds_of_epoch(self) -> float:
        """About how long one pass over the training data takes: the reading, three times the forward pass, and the teacher's."""
        count = min(64, len(self.task.train))
        start = time.perf_counter()
        inputs, _ = next(self.task.train.batches(count, self.task.generator()))
        reading = time.perf_counter() - start
        device = training_device(self.network, self.task.device)
        made, inputs = copy.deepcopy(self.network).to(device), to_device(inputs, device)
        with eval_mode(made):
            outputs_of(made, inputs)
            start = time.perf_counter()
            outputs_of(made, inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return (reading + 4 * (time.perf_counter() - start)) * len(self.task.train) / count


def recovery(seconds: float, epoch: float, shape: Shape) -> float:
    """Epochs of recovery for a shape: half of an epoch's time is the teacher's, which is not cut."""
    return epochs_for(seconds, epoch * (1 + shape.work) / 2)


def epochs_for(seconds: float, epoch: float) -> float:
    """Epochs that fit, at most MOST_EPOCHS, in quarters; 0 where not a quarter does."""
    return min(MOST_EPOCHS, int(4 * seconds / max(epoch, 1e-9)) / 4)
