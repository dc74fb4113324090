"""The training loop: on CPU or GPU, in one process or under torchrun, on any objectives, with or without teachers."""

import contextlib
import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue, in_own_code
from cortado.layers.factors import factored_copy
from cortado.parts.part import after_step
from cortado.progress import Progress, quiet
from cortado.running.devices import on_device, own_device, training_device
from cortado.running.eval_mode import train_mode, uncompiled
from cortado.task.task import Task
from cortado.training.averaging import WeightMean
from cortado.training.batches import Batches, Drawn
from cortado.training.cuda_graph import Recording, recorded
from cortado.training.curves import TOTAL, Curves
from cortado.training.distributed import Processes
from cortado.training.learner import Learner
from cortado.training.objectives.objective import Added, Objective
from cortado.training.objectives.task import TaskLoss
from cortado.training.optimizers import bound_units, groups_of, optimizer_of, set_lr
from cortado.training.precision import Precision
from cortado.training.traffic import Traffic
from cortado.training.training import Training

LOG = logging.getLogger(__name__)
CLIP_OF_KEPT = 5.0
"""Gradient norm for SGD on a freshly cut network with kept statistics. Adam's step size does not depend on gradients."""
TASK_ALONE = (TaskLoss(),)


@dataclass(frozen=True)
class Trained:
    """What a training gives: the mean loss of the last epoch (NaN without epochs), each term's mean in every epoch, and the
    bytes of gradients between processes."""

    loss: float = math.nan
    curves: dict[str, list[float]] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)

    def __float__(self) -> float:
        return self.loss


def train(
    network: nn.Module,
    task: Task,
    training: Training,
    *,
    objectives: Sequence[Objective] = TASK_ALONE,
    teachers: Sequence[nn.Module] = (),
    seed: int = 0,
    label: str = "finetune",
    progress: Progress | None = None,
    groups: Callable[[nn.Module], Iterable[dict[str, Any]]] | None = None,
    after_batch: Callable[[nn.Module, int], None] | None = None,
    after_epoch: Callable[[nn.Module, int], bool] | None = None,
) -> Trained:
    """Train `network` in place on the sum of all objectives' terms, each times its weight.

    Runs on the task's device, then moves the network back. Deterministic for a given seed and CPU. `teachers` are copied
    and stay as they are. `groups(network)` gives the optimizer's parameter groups. `after_batch(network, step)` runs after
    each step; `after_epoch(network, epoch)` may change the network's structure and return True to restart the optimizer.
    Low-rank weights run as their factors. `label` starts messages. Raises Diverged for a term that is not finite,
    BadNetwork if nothing is trainable, BadTask for a missing device.
    """
    device = training_device(network, task.device)
    # A network that is split over processes does not move whole.
    with on_device(network, own_device(network) if training.shard else device), contextlib.ExitStack() as stack:
        calls = Calls(seed, label, progress or quiet(), groups, after_batch, after_epoch)
        loop = Loop(network, task, training, Processes(device, training.hook), calls)
        stack.callback(loop.close)
        loop.prepare(objectives, teachers)
        return loop.run()


@dataclass(frozen=True)
class Calls:
    """What a caller of `train` gives besides knobs."""

    seed: int
    label: str
    progress: Progress
    groups: Callable[[nn.Module], Iterable[dict[str, Any]]] | None = None
    after_batch: Callable[[nn.Module, int], None] | None = None
    after_epoch: Callable[[nn.Module, int], bool] | None = None


class Loop:
    """The state of one training: `prepare`, then `run`; or all of `steps`, then `finish`."""

    def __init__(self, network: nn.Module, task: Task, training: Training, group: Processes, calls: Calls) -> None:
        self.network, self.task, self.training, self.calls = network, task, training, calls
        self.device, self.group, self.total = group.device, group, 0
        self.batches = Batches(task, training.batch or task.batch, self.device, group, calls.seed)
        self.precision = Precision.of(network, training.precision, self.device, training.recorded)
        if self.precision.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recording: Recording | None = None
        self.curves = Curves()
        self.learner: Learner | None = None
        self.sharded: Any = None
        self.moved = network
        """What the optimizer moves: the network, or its split copy."""

    def prepare(self, objectives: Sequence[Objective], teachers: Sequence[nn.Module]) -> None:
        """Put taps on network and teachers, let objectives make their modules, and make the optimizer."""
        calls, training = self.calls, self.training
        runner = train_mode(self.runner(objectives), training.statistics)
        self.learner = Learner(runner, objectives, self.precision, self.task, calls.label)
        self.learner.gathered = self.group.gathered
        used = self.learner.objectives
        steps = self.batches.open(used, calls.label)
        # A fraction of an epoch is at least one step; 0 epochs are none.
        self.total = max(1, round(training.epochs * steps)) if training.epochs else 0
        taps = [tap for one in used for tap in one.taps().teacher]
        if teachers and self.total:
            self.learner.ask = self.batches.teach(teachers, taps, training.precision, runner).observe
        self.along: list[nn.Parameter] = []
        if self.total and any(makes_modules(one) or one.taps().network for one in used):
            with seeded(calls.seed + 1), uncompiled(runner):
                self.along = self.learner.make_modules(self.batches.first(), self.group)
        self.batches.keep(training)
        self.recordable = self.group.world == 1 and all(
            one.recordable and not one.opponents() for one in self.learner.objectives
        )
        self.begin(runner)

    def runner(self, objectives: Sequence[Objective]) -> nn.Module:
        """Return the network as it runs.  Raises BadValue where `shard` is asked for what needs whole weights."""
        if not self.training.shard or self.group.world == 1:
            return factored_copy(self.network)
        calls = self.calls
        if calls.after_epoch or calls.groups or any(makes_modules(one) or isinstance(one, Added) for one in objectives):
            raise BadValue(
                f"{calls.label}: with shard, no process has the whole weights, which penalties, modules learned along and "
                "changes of structure need. Set shard: false."
            )
        # Torch's part for it takes two seconds to import.
        from cortado.training.sharded import ShardedCopy

        self.sharded = ShardedCopy(self.network, self.device, self.group.world)
        self.moved = self.sharded.runner
        return self.moved

    def begin(self, runner: nn.Module) -> None:
        """Begin, or begin again after a change of structure."""
        assert self.learner is not None
        self.whole = self.learner if self.sharded else self.group.wrapped(self.learner)
        self.optimizer = self.make_optimizer()
        self.recording, self.average = None, WeightMean(self.moved)

    def close(self) -> None:
        """Take off all hooks and remove files."""
        if self.learner is not None:
            self.learner.hooks.remove()
        self.batches.close()

    def make_optimizer(self) -> torch.optim.Optimizer:
        calls = self.calls
        if not any(one.requires_grad for one in self.moved.parameters()):
            raise BadNetwork(
                f"{calls.label}: the network has no trainable parameter. Set requires_grad, or leave this stage out."
            )
        groups = list(calls.groups(self.moved)) if calls.groups else groups_of(self.moved, self.training)
        return optimizer_of(self.training, [*groups, *([{"params": self.along}] if self.along else [])])

    def run(self) -> Trained:
        """Train to the end."""
        for _ in self.steps():
            continue
        return self.finish()

    def steps(self) -> Generator[int, None, None]:
        """Train, and yield the number of steps done after each."""
        assert self.learner is not None
        calls, step, epoch = self.calls, 0, 0
        with calls.progress.bar(calls.label, self.total) as bar, seeded(calls.seed), self.as_written():
            while step < self.total:
                step = yield from self.epoch(epoch, step, bar)
                epoch += 1
                if calls.after_epoch is not None and calls.after_epoch(self.network, epoch):
                    self.learner.hooks.remove()
                    runner = train_mode(factored_copy(self.network), self.training.statistics)
                    self.learner.run_on(runner)
                    self.begin(runner)

    def finish(self) -> Trained:
        """Give the network its final values, and return what the training gave."""
        self.average.apply()
        if self.sharded is not None:
            self.sharded.gather()
        self.group.average_statistics(self.network)
        self.network.eval()
        return Trained(self.curves.loss, self.curves.means, self.group.traffic)

    def as_written(self) -> contextlib.AbstractContextManager[Any]:
        """Run compiled code as it was written if there are taps, which it would not see."""
        assert self.learner is not None
        return uncompiled(self.learner.runner) if self.learner.hooks.taps else contextlib.nullcontext()

    def epoch(self, epoch: int, step: int, bar: Any) -> Generator[int, None, int]:
        """Train one epoch from a step on, yield the number of steps done after each, and return it at the end."""
        for number, batches in enumerate(self.batches.epoch(epoch), 1):
            if step >= self.total:
                break
            set_lr(self.optimizer, self.training, step / self.total, self.total)
            where = f"{self.calls.label}: batch {number} of epoch {epoch + 1}: the network, forward or backward,"
            with in_own_code(BadNetwork, where, "Fix it for such inputs, or check this batch of the data."):
                self.curves.add(self.step(batches, step))
            step += 1
            bar.advance()
            if step > self.total * (1 - self.training.average):
                self.average.take()
            if self.calls.after_batch is not None:
                self.calls.after_batch(self.network, step)
            yield step
        self.curves.end_epoch(self.group, epoch, self.calls.label, self.hint())
        LOG.debug(
            "%s: epoch %d, step %d of %d, loss %.4g", self.calls.label, epoch + 1, step, self.total, self.curves.loss
        )
        return step

    def hint(self) -> str:
        """Return what to do about a loss that is not finite."""
        training, half = self.training, self.precision.half
        dtypes = {one.dtype for one in self.moved.parameters() if one.is_floating_point()} - {torch.float32}
        kinds = [str(one).removeprefix("torch.") for one in sorted(dtypes, key=str)]
        return (
            f"in {' and '.join(kinds) or ('bfloat16' if half else 'float32')} with {training.statistics} batch norm statistics. "
            f"{'Call network.float() first, lower' if kinds else 'Lower'} lr ({training.lr:g}), clip gradients"
            f"{', set precision: float32' * half}{', set statistics: moving' * (training.statistics == 'kept')}, "
            "or look for NaN in data and loss."
        )

    def step(self, batches: Drawn, number: int) -> dict[str, Tensor]:
        assert self.learner is not None
        self.learner.number, self.learner.progress = number, number / self.total
        values = self.gradients(batches)
        clip = self.training.clip
        if clip is None and self.training.statistics == "kept" and isinstance(self.optimizer, torch.optim.SGD):
            clip = CLIP_OF_KEPT
        if clip is not None:
            nn.utils.clip_grad_norm_([*self.moved.parameters(), *self.along], clip)
        self.optimizer.step()
        bound_units(self.optimizer)
        after_step(self.moved)
        return values

    def gradients(self, batches: Drawn) -> dict[str, Tensor]:
        """Return every term and leave gradients in the parameters; replay the step if it was recorded."""
        if self.training.recorded and self.device.type == "cuda" and self.recordable:
            if self.recording is None:
                self.recording = recorded(self.forward_and_back, self.whole, batches)
            if self.recording.fits(batches):
                return self.recording(batches)
        self.optimizer.zero_grad(set_to_none=True)
        return self.forward_and_back(batches)

    def forward_and_back(self, batches: Drawn) -> dict[str, Tensor]:
        total, values = self.whole(batches)
        total.backward()
        return {TOTAL: total.detach(), **values}


def makes_modules(objective: Objective) -> bool:
    """Return whether an objective has modules of its own."""
    return type(objective).modules is not Objective.modules


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed random numbers such as dropout's, and restore the caller's random state afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
