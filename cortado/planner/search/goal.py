"""Goal: limits in; recipes, recovered as far as the time allows, are tried until the best network that keeps them is found."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from cortado.brought import accept, blaming
from cortado.devices import training_device
from cortado.engine.options import RunOptions
from cortado.errors import BadValue
from cortado.eval_mode import eval_mode
from cortado.planner.allocate.mix import corrected
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve, remember, size_accuracy_curve
from cortado.planner.search.cache import Memory, mark_of
from cortado.planner.search.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.search.deadline import Deadline, seconds_of
from cortado.planner.search.engine import Engine
from cortado.planner.search.proposal import Proposal, safe
from cortado.planner.search.proposals import Proposals
from cortado.planner.search.result import SearchResult
from cortado.planner.search.shapes import CHANNELS, Explorer, Shape, Shapes, cuts_for, tail_of
from cortado.planner.search.trials import Trial, Wanted
from cortado.progress import Progress
from cortado.quantities import time_text
from cortado.runtimes.runtime import Runtime
from cortado.task.measure import outputs_of
from cortado.task.task import Task, to_device

MOST_EPOCHS = 20.0
RECOVERY_SHARE = 0.3
"""Of the time, for the recovery of one trial."""
EXPLORE_SHARE = 0.2
"""Of the time, for finding out what can be cut."""
FORECAST_SHARE = 1 / 3
"""Of the time at most, for a forecast."""


def reach(
    network: nn.Module,
    task: Task,
    limits: Sequence[str],
    *,
    minimise: str = "size",
    time_limit: str | float = "30 min",
    folder: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
    runtimes: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    threads: int = 1,
) -> SearchResult:
    """Return the smallest network (`minimise` "size"), the fastest ("latency") or that of least loss ("loss") under `limits`.

    A plain rounding to 8 bits is tried first. Where time counts, cuts are timed in the runtime of the limit, or the first of
    `runtimes`, in floats and in whole numbers; where bytes count, weights are form the forecast says. Each trial recovers
    with the network itself as teacher and is kept in `folder`; `resume` goes on with them. All are compared on the task's
    validation data; the test data are used once, for the best. Without a limit of the score, "size" means "loss". No trial
    begins after the `time_limit` ("30 min") unless none has kept all limits. `runtimes`, `batches` and `threads` are as in
    compress, for the best. Raises BadValue for limits or a time that say nothing, and what compress raises.
    """
    options = RunOptions.read(
        limits, folder=folder, resume=resume, progress=progress, runtimes=runtimes, batches=batches, threads=threads
    )
    return reach_within(network, task, options, minimise, time_limit)


def reach_within(
    network: nn.Module, task: Task, options: RunOptions, minimise: str, time_limit: str | float
) -> SearchResult:
    """Do what `reach` does, with options that were read before."""
    brought, seconds = accept(network, "plan"), seconds_of(time_limit, "goal")
    kinds = {limit.what for limit in options.limits}
    if minimise == "size" and kinds and "score" not in kinds:
        # The smallest file of all knows nothing: within limits of bytes or time the best network is meant.
        minimise = "loss"
    check_goal(kinds, minimise, options.speed.runtimes)
    search = GoalSearch(Engine.of(network, task, minimise, options), seconds)
    with blaming(brought):
        search.run(options.resume)
    engine = search.engine
    if not any(one.done for one in search.trials):
        reported = search.trials[-1].failed
        raise BadValue(
            f"goal: nothing could be tried. {reported} Loosen the limits, or write a recipe of your own: --recipe."
        )
    return engine.result(search.trials, search.slower(engine.wanted.best(search.trials)))


def check_goal(kinds: set[str], minimise: str, runtimes: Sequence[Runtime]) -> None:
    """Raise BadValue for kinds of limits under which there is nothing to make small, or fast."""
    if not kinds:
        raise BadValue(
            "goal: minimise what, as long as what is kept? Give one limit or more, such as --limit 'score >= -0.5 %'."
        )
    if minimise == "loss" and not kinds & {"size", "latency"}:
        raise BadValue(
            "goal: the original network has the least loss. Limit the size or the latency too: --limit 'size <= 100 KB'."
        )
    if minimise == "latency" and "score" not in kinds:
        raise BadValue(
            "goal: the fastest network of all knows nothing. Limit the score too: --limit 'score >= -0.5 %'."
        )
    if minimise == "latency" and not runtimes and "latency" not in kinds:
        raise BadValue("goal: the least latency in which runtime? Say where to time: --measure-in onnxruntime.")


@dataclass
class GoalSearch:
    """Proposes recipes for one goal, in the order of what came out before."""

    engine: Engine
    seconds: float
    trials: list[Trial] = field(default_factory=list)

    @property
    def wanted(self) -> Wanted:
        return self.engine.wanted

    def run(self, resume: bool) -> None:
        """Carry out trials until time or ideas are at an end; those of an interrupted run come first, and their time counts."""
        engine, self.deadline = self.engine, Deadline(self.seconds)
        begun = engine.noted() if resume else engine.forget()
        self.deadline.start -= sum(one.seconds for one in begun if one.done)
        self.tail = tail_of(engine.network, engine.task) if self.wanted.bytes_count else ""
        first = safe(self.wanted, self.tail)
        self.carry_out(begun[0] if begun else first)
        if not begun[1:] and self.enough():
            return
        ideas, epoch = self.proposals()
        waiting = begun[1:]
        while waiting or not self.enough():
            left = min(self.seconds - self.deadline.spent, RECOVERY_SHARE * self.seconds)
            found = waiting.pop(0) if waiting else ideas.next(self.trials, partial(recovery, left, epoch))
            if found is None:
                return
            made = self.carry_out(found)
            ideas.curve = corrected(ideas.curve, self.trials[-1], made, engine.network, engine.task)

    def enough(self) -> bool:
        """Return whether time is up; never before a trial keeps all limits, or what is expected to was tried."""
        return self.deadline.over() and (len(self.trials) > 1 or any(one.keeps_all for one in self.trials))

    def carry_out(self, found: Proposal | Trial) -> nn.Module | None:
        """Try a recipe, the next one in number."""
        trial, made = self.engine.run(Trial(found.recipe, found.shape, number=len(self.trials) + 1))
        self.trials.append(trial)
        return made

    def proposals(self) -> tuple[Proposals, float]:
        """Return what proposes recipes, and the seconds of an epoch; what was measured before is read again, with its time."""
        engine, seconds = self.engine, self.seconds if self.wanted.time_counts else 0.0
        network, task, shown = engine.network, engine.task, engine.progress
        memory = Memory(
            engine.folder,
            mark_of(network, task, CANDIDATE_RECIPES, cuts_for(engine.runtime, engine.threads), self.tail),
        )
        explorer = Explorer(network, task, engine.watch, self.tail)
        shapes = memory.made(
            "shapes", Shapes, lambda: explorer.explored(seconds=EXPLORE_SHARE * self.seconds, progress=shown), seconds
        )
        curve = None
        if self.wanted.bytes_count:
            share = FORECAST_SHARE * self.seconds
            curve = memory.made(
                "forecast",
                SizeAccuracyCurve,
                lambda: size_accuracy_curve(network, network, task, progress=shown, time_limit=share),
                self.seconds,
            )
            remember(curve, network, task)
            curve = replace(curve, rest_bytes=shapes.found[0].rest_bytes)
        epoch = memory.made("epoch", float, self.seconds_of_epoch)
        self.deadline.start -= sum(memory.spent)
        # Where only bytes count, cuts are looked for once all else is exhausted.
        more = Explorer(network, task, None, self.tail)
        return Proposals(
            self.wanted, shapes.found, curve, self.tail, lambda: more.explored(CHANNELS[:2], progress=shown).found
        ), epoch

    def slower(self, best: Trial) -> str:
        """Return what to say where speed was asked for and the original has it; "" else."""
        watch, runtime = self.engine.watch, self.engine.runtime
        if self.wanted.minimise != "latency" or watch is None or (best.latency_ms or 0.0) < watch.original_ms:
            return ""
        return (
            f"Nothing that was tried is faster in {runtime} than the original network, which takes "
            f"{time_text(watch.original_ms)}. Leave it as it is, allow more loss, or give more time."
        )

    def seconds_of_epoch(self) -> float:
        """Return about how long a pass over the training data takes: reading, three times the forward pass, and the teacher's."""
        task, network = self.engine.task, self.engine.network
        count = min(64, len(task.train))
        begun = time.perf_counter()
        inputs, _ = next(task.train.batches(count, task.generator()))
        reading = time.perf_counter() - begun
        device = training_device(network, task.device)
        made, inputs = copy.deepcopy(network).to(device), to_device(inputs, device)
        with eval_mode(made):
            outputs_of(made, inputs)
            begun = time.perf_counter()
            outputs_of(made, inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return (reading + 4 * (time.perf_counter() - begun)) * len(task.train) / count


def recovery(seconds: float, epoch: float, shape: Shape) -> float:
    """Return the epochs of recovery for a shape: half of an epoch's time is the teacher's, which is not cut."""
    return epochs_for(seconds, epoch * (1 + shape.work) / 2)


def epochs_for(seconds: float, epoch: float) -> float:
    """Return the epochs that fit, at most MOST_EPOCHS, in quarters; 0 where not a quarter does."""
    return min(MOST_EPOCHS, max(0, int(4 * seconds / max(epoch, 1e-9)) / 4))
