"""Goal: from limits to the best network within them, by trying recipes with finetuning for as long as time allows."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado.engine.options import RunOptions
from cortado.engine.stage import start, view_of
from cortado.errors import BadValue
from cortado.methods.needs import matrices
from cortado.methods.observed import matrices_that_run
from cortado.methods.quantize.rate_distortion import QuantizeRateDistortion
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve, remember, size_accuracy_curve
from cortado.planner.search.cache import Memory, mark_of
from cortado.planner.search.cascades import Cascades, cascades_for, check_members, has_paths, is_cascade
from cortado.planner.search.correction import corrected
from cortado.planner.search.early_exits import EarlyExits
from cortado.planner.search.engine import Engine
from cortado.planner.search.proposal import Proposal, safe
from cortado.planner.search.proposals import Proposals
from cortado.planner.search.result import SearchResult
from cortado.planner.search.shapes import CHANNELS, Explorer, Shape, Shapes, cuts_for, tail_of
from cortado.planner.search.trials import SearchGoal, Trial
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.sensitivity.deadline import Deadline, seconds_of
from cortado.progress import Progress
from cortado.quantities import time_text
from cortado.running.brought import accept, blaming
from cortado.running.call import call
from cortado.running.devices import training_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.runtimes.runtime import Runtime
from cortado.task.limits import MULTIPLY_ADDS
from cortado.task.shifts import shifts_in
from cortado.task.task import Task

MOST_EPOCHS = 20.0
RECOVERY_SHARE = 0.3
"""Share of the time for finetuning one trial."""
EXPLORE_SHARE = 0.2
"""Share of the time for measuring cuts."""
MOST = 0.9
"""Share of the matrices' entries that quantize/rate_distortion has to take."""
MEASURING_SHARE = 1 / 3
"""Largest share of the time for all measuring before the first proposal: cuts, and the size-accuracy curve."""


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
    members: Sequence[Any] = (),
) -> SearchResult:
    """Return the smallest (`minimise` "size"), fastest ("latency") or most accurate ("loss") network under `limits`.

    The first trial rounds weights to 8 bits. If latency counts, cuts are timed in the runtime of the limit, else the first
    of `runtimes`, in floats and in integers; before, so are cascades of `members`, smaller trained networks written as for
    conditional/cascade; if bytes count, weights take the forms that the size-accuracy curve suggests.
    Each trial is finetuned with the original network as teacher and stored in `folder`; `resume` continues from there.
    Trials are compared on validation data; the test data are used once, for the best trial. Without a score limit, "size"
    means "loss". No trial starts after the `time_limit` ("30 min") unless none has met all limits yet. `runtimes`,
    `batches` and `threads` are as in compress, for the best trial. Raises BadValue for invalid limits or times, and what
    compress raises.
    """
    options = RunOptions.read(
        limits, folder=folder, resume=resume, progress=progress, runtimes=runtimes, batches=batches, threads=threads
    )
    return reach_within(network, task, options.for_network(network, task), minimise, time_limit, members)


def reach_within(
    network: nn.Module, task: Task, options: RunOptions, minimise: str, time_limit: str | float, members: Sequence[Any] = ()
) -> SearchResult:  # fmt: skip
    """Run `reach` with parsed options."""
    brought, seconds = accept(network, "plan"), seconds_of(time_limit, "goal")
    kinds = {limit.what for limit in options.limits}
    if minimise == "size" and kinds and "score" not in kinds:
        # Without a score limit the smallest file is trivial, so maximise accuracy within the limits.
        minimise = "loss"
    check_goal(kinds, minimise, options.speed.runtimes)
    search = GoalSearch(Engine.of(network, task, minimise, options), seconds, members=check_members(members))
    with blaming(brought):
        search.run(options.resume)
    engine = search.engine
    if not any(one.done for one in search.trials):
        reported = search.trials[-1].failed
        raise BadValue(
            f"goal: no trial succeeded. {reported} Loosen the limits, or write a recipe of your own: --recipe."
        )
    found = engine.result(search.trials, search.slower(engine.wanted.best(search.trials)))
    note = search.cascades.note(search.trials)
    return replace(found, notes=(*found.notes, *([note] if note else [])))


def check_goal(kinds: set[str], minimise: str, runtimes: Sequence[Runtime]) -> None:
    """Raise BadValue for limits that leave nothing to minimise, or that no proposal goes by."""
    if MULTIPLY_ADDS in kinds:
        raise BadValue(
            "goal: without a recipe, multiply-adds are no limit: the planner goes by size, files and latency. Give a recipe, or "
            "let cortado search choose options of the network."
        )
    if not kinds:
        raise BadValue("goal: a search needs at least one limit, such as --limit 'score >= -0.5 %'.")
    if minimise == "loss" and not kinds & {"size", "file", "latency"}:
        raise BadValue(
            "goal: the original network already has the least loss. Limit the size or the latency too: --limit 'size <= 100 KB'."
        )
    if minimise == "latency" and "score" not in kinds:
        raise BadValue(
            "goal: minimising latency needs an accuracy limit. Limit the score too: --limit 'score >= -0.5 %'."
        )
    if minimise == "latency" and not runtimes and "latency" not in kinds:
        raise BadValue("goal: latency needs a runtime. Name one: --measure-in onnxruntime.")


@dataclass
class GoalSearch:
    """Runs the trials for one goal, each proposed from the results so far."""

    engine: Engine
    seconds: float
    trials: list[Trial] = field(default_factory=list)
    members: tuple[Any, ...] = ()
    cascades: Cascades = field(init=False)

    @property
    def wanted(self) -> SearchGoal:
        return self.engine.wanted

    def run(self, resume: bool) -> None:
        """Run trials until time or proposals run out; those of an interrupted run come first, and their time counts."""
        engine, self.deadline = self.engine, Deadline(self.seconds)
        begun = engine.noted() if resume else engine.forget()
        self.deadline.start -= sum(one.seconds for one in begun if one.done)
        self.tail = tail_of(engine.network, engine.task) if self.wanted.bytes_count else ""
        self.cascades = cascades_for(self.wanted, self.members, engine.network, engine.task, self.tail)
        first = safe(self.wanted, self.tail)
        self.carry_out(begun[0] if begun else first)
        waiting = self.try_cascades(begun[1:])
        if not waiting and self.enough():
            return
        ideas, epoch = self.proposals()
        while waiting or not self.enough():
            left = min(self.seconds - self.deadline.spent, RECOVERY_SHARE * self.seconds)
            found = waiting.pop(0) if waiting else self.next(ideas, partial(recovery, left, epoch))
            if found is None:
                return
            made = self.carry_out(found)
            ideas.curve = corrected(ideas.curve, self.trials[-1], made, engine.network, engine.task)

    def next(self, ideas: Proposals, epochs: Callable[[Shape], float]) -> Proposal | None:
        """Return the next proposal: of cascades if some are named, of one path for all, last of an exit."""
        one_path = [one for one in self.trials if not has_paths(one)]
        found = self.cascades.next(self.trials) or ideas.next(one_path, epochs)
        if found is not None or self.members:
            return found
        exits = EarlyExits(self.wanted, self.engine.network, self.engine.task, self.cascades.lose, self.tail)
        return exits.next(self.trials, epochs)

    def try_cascades(self, waiting: list[Trial]) -> list[Trial]:
        """Run the cascades, those of an interrupted run first; return what else that run began."""
        while is_cascade(waiting[0]) if waiting else not self.enough():
            found = waiting.pop(0) if waiting else self.cascades.next(self.trials)
            if found is None:
                break
            self.carry_out(found)
        return waiting

    def enough(self) -> bool:
        """Return whether time is up, and one trial meets all limits or two were run."""
        return self.deadline.over() and (len(self.trials) > 1 or any(one.keeps_all for one in self.trials))

    def carry_out(self, found: Proposal | Trial) -> nn.Module | None:
        """Run the next trial and return its network."""
        trial, made = self.engine.run(Trial(found.recipe, found.shape, number=len(self.trials) + 1))
        self.trials.append(trial)
        self.cascades.learn(trial, made, self.engine.network, self.engine.task)
        return made

    def proposals(self) -> tuple[Proposals, float]:
        """Return the source of proposals and the seconds of an epoch; earlier measurements are reused, and their time counts."""
        engine, seconds = self.engine, self.seconds if self.wanted.time_counts else 0.0
        network, task, shown, shifts = engine.network, engine.task, engine.progress, shifts_in(self.wanted.limits)
        memory = Memory(
            engine.folder,
            mark_of(network, task, CANDIDATE_RECIPES, cuts_for(engine.runtime, engine.threads), self.tail, shifts),
        )
        explorer, begun = Explorer(network, task, engine.watch, self.tail), Deadline()
        shapes = memory.made(
            "shapes", Shapes, lambda: explorer.explored(seconds=EXPLORE_SHARE * self.seconds, progress=shown), seconds
        )
        curve = None
        if self.wanted.bytes_count:
            # However late a cut was measured, the curve has its first recipe.
            share = max(1e-9, MEASURING_SHARE * self.seconds - begun.spent)
            curve = memory.made(
                "curve",
                SizeAccuracyCurve,
                lambda: size_accuracy_curve(network, network, task, progress=shown, time_limit=share, shifts=shifts),
                self.seconds,
            )
            remember(curve, network, task)
            curve = replace(curve, rest_bytes=shapes.found[0].rest_bytes)
        epoch = memory.made("epoch", float, self.seconds_of_epoch)
        self.deadline.start -= sum(memory.spent)
        # If only bytes count, cuts are explored last.
        more = Explorer(network, task, None, self.tail)
        return Proposals(
            self.wanted, shapes.found, curve, self.tail, lambda: more.explored(CHANNELS[:2], progress=shown).found,
            rounds=rounds_most(network, task),
        ), epoch  # fmt: skip

    def slower(self, best: Trial) -> str:
        """Return a note if no trial is faster than the original network; "" otherwise."""
        watch, runtime = self.engine.watch, self.engine.runtime
        if self.wanted.minimise != "latency" or watch is None or (best.latency_ms or 0.0) < watch.original_ms:
            return ""
        return (
            f"No trial is faster in {runtime} than the original network, which takes "
            f"{time_text(watch.original_ms)}. Keep the original, allow more loss, or give more time."
        )

    def seconds_of_epoch(self) -> float:
        """Return the estimated seconds of a training epoch: reading, four forward passes (one is the teacher's)."""
        task, network = self.engine.task, self.engine.network
        count = min(64, len(task.train))
        begun = time.perf_counter()
        inputs, _ = next(task.train.batches(count, task.generator()))
        reading = time.perf_counter() - begun
        device = training_device(network, task.device)
        made, inputs = copy.deepcopy(network).to(device), to_device(inputs, device)
        with eval_mode(made):
            call(made, inputs)
            begun = time.perf_counter()
            call(made, inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return (reading + 4 * (time.perf_counter() - begun)) * len(task.train) / count


def rounds_most(network: nn.Module, task: Task) -> bool:
    """Return whether quantize/rate_distortion takes most of the matrices of a network."""
    view = view_of(start(network, network, task.example))
    taken = sum(one.weight.shape.numel() for one in matrices_that_run(QuantizeRateDistortion(), view, task))
    return taken > MOST * sum(one.shape.numel() for one in matrices(view.weights()))


def recovery(seconds: float, epoch: float, shape: Shape) -> float:
    """Return the epochs of finetuning for a shape; half of an epoch's time goes to the teacher, which is not cut."""
    return epochs_for(seconds, epoch * (1 + shape.work) / 2)


def epochs_for(seconds: float, epoch: float) -> float:
    """Return the epochs that fit into `seconds`, at most MOST_EPOCHS, rounded down to quarters."""
    return min(MOST_EPOCHS, max(0, int(4 * seconds / max(epoch, 1e-9)) / 4))
