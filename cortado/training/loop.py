"""The training loop: on CPU or GPU, in one process or under torchrun, with optional teachers and penalties."""

import contextlib
import copy
import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadTask, BadValue, Diverged, in_own_code
from cortado.layers.factors import factored_copy
from cortado.parts.part import after_step
from cortado.progress import Progress, quiet
from cortado.running.devices import on_device, own_device, training_device
from cortado.running.eval_mode import train_mode
from cortado.task.task import Task, to_device
from cortado.training.cuda_graph import Recording, recorded
from cortado.training.dilated import DilatedInFloat32
from cortado.training.distributed import average_gradients, ranks, shard, share_start, share_statistics
from cortado.training.teachers import distillation, ensemble, softened

LOG = logging.getLogger(__name__)
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("cosine", "constant", "step")
CLIP_OF_KEPT = 5.0
"""Gradient norm for SGD on a freshly cut network with kept statistics. Adam's step size does not depend on gradients."""


@dataclass(frozen=True)
class Training:
    """How to train: everything the loop needs besides network and task.

    `optimizer` is a name or a callable (parameter groups -> Optimizer); `schedule` a name or a callable (training
    progress 0..1 -> factor of lr). `penalty(network)` is added to the loss. `teachers` add distillation: loss = hard x
    task loss + soft x T^2 x KL(teachers' mean at T || network at T) (Hinton et al., 2015). `average`: the last share of
    training over which weights are averaged (Izmailov et al., 2018). `precision`: "auto" uses bfloat16 for
    convolutional networks if the device supports it. `statistics` of batch norms: "moving" or "kept" (see `train_mode`);
    with "kept", SGD clips gradients at 5 unless `clip` is set, and Adam needs an lr of 1e-3 or less. `recorded`: replay
    each step as a CUDA graph (see cortado.training.cuda_graph); ignored with a penalty.
    """

    epochs: float = 1.0
    lr: float = 1e-3
    optimizer: str | Callable[[Any], torch.optim.Optimizer] = "adam"
    schedule: str | Callable[[float], float] = "cosine"
    warmup: float = 0.0
    momentum: float = 0.9
    decay: float = 0.0
    batch: int | None = None
    clip: float | None = None
    average: float = 0.0
    precision: str = "auto"
    statistics: str = "moving"
    recorded: bool = False
    teachers: Sequence[nn.Module] = ()
    temperature: float = 2.0
    hard: float = 1.0
    soft: float = 0.0
    penalty: Callable[[nn.Module], Tensor] | None = None
    groups: Callable[[nn.Module], Iterable[dict[str, Any]]] | None = None
    after_batch: Callable[[nn.Module, int], None] | None = None
    after_epoch: Callable[[nn.Module, int], bool] | None = None
    seed: int = 0
    label: str = "finetune"
    progress: Progress = field(default_factory=quiet)


def train(network: nn.Module, task: Task, plan: Training) -> float:
    """Train `network` in place on the task's training data; return the mean loss of the last epoch, NaN without epochs.

    Runs on the task's device, then moves the network back. Deterministic for a given seed and CPU. `after_epoch` may
    change the network's structure and return True to restart the optimizer. Low-rank weights run as their factors.
    Raises Diverged for a non-finite loss, BadNetwork if nothing is trainable, BadTask for a missing device.
    """
    with on_device(network, training_device(network, task.device)):
        return Loop(network, task, plan).run()


class Loop:
    """The state of one training."""

    def __init__(self, network: nn.Module, task: Task, plan: Training) -> None:
        self.network, self.task, self.plan = network, task, plan
        self.device = own_device(network)
        self.rank, self.world = ranks(self.device)
        self.batch = plan.batch or task.batch
        # Drop a last batch of one sample: batch norm needs a variance.
        self.alone = len(task.train) % self.batch == 1 and len(task.train) > 1
        self.steps = max(1, math.ceil(len(task.train) / self.batch) - self.alone)
        # A fraction of an epoch is at least one step; 0 epochs are none.
        self.total = max(1, round(plan.epochs * self.steps)) if plan.epochs else 0
        self.half = half_precision(network, plan.precision, self.device)
        slides = self.device.type == "cpu" and any(isinstance(module, nn.Conv2d) for module in network.modules())
        self.channels_last = self.half or slides
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.runner = factored_copy(network)
        self.teachers = [ready(teacher, self.device) for teacher in plan.teachers]
        # Teachers only run forward, where even a shallow network gains from bfloat16.
        self.half_teachers = any(half_precision(one, plan.precision, self.device, deep=1) for one in self.teachers)
        if self.teachers and plan.soft and task.train.augment is None and not plan.recorded:
            self.task = softened(task, self.teachers, plan.temperature, plan.hard, plan.soft, self.half_teachers)
            self.plan, self.teachers = dataclasses.replace(plan, hard=1.0, soft=0.0), []
        self.mean: dict[str, Tensor] = {}
        self.averaged = 0
        self.recording: Recording | None = None
        self.optimizer = self.make_optimizer()

    def make_optimizer(self) -> torch.optim.Optimizer:
        plan = self.plan
        learning = [p for p in self.network.parameters() if p.requires_grad]
        if not learning:
            raise BadNetwork(
                f"{plan.label}: the network has no trainable parameter. Set requires_grad, or leave this stage out."
            )
        groups = list(plan.groups(self.network)) if plan.groups else [{"params": learning}]
        if callable(plan.optimizer):
            made = plan.optimizer(groups)
        elif plan.optimizer == "sgd":
            made = torch.optim.SGD(groups, plan.lr, plan.momentum, weight_decay=plan.decay, nesterov=plan.momentum > 0)
        elif plan.optimizer == "adamw":
            made = torch.optim.AdamW(groups, plan.lr, weight_decay=plan.decay)
        elif plan.optimizer == "adam":
            made = torch.optim.Adam(groups, plan.lr, weight_decay=plan.decay)
        else:
            raise BadValue(f"{plan.label}: optimizer must be one of {', '.join(OPTIMIZERS)}, got {plan.optimizer!r}.")
        for group in made.param_groups:
            group["full_rate"] = group["lr"]
        return made

    def run(self) -> float:
        share_start(self.network, self.world)
        train_mode(self.runner, self.plan.statistics)
        step, epoch, loss = 0, 0, math.nan
        with self.plan.progress.bar(self.plan.label, self.total) as bar, seeded(self.plan.seed):
            while step < self.total:
                loss, step = self.epoch(epoch, step, bar)
                epoch += 1
                if self.plan.after_epoch is not None and self.plan.after_epoch(self.network, epoch):
                    self.optimizer, self.mean, self.averaged = self.make_optimizer(), {}, 0
                    self.runner = train_mode(factored_copy(self.network), self.plan.statistics)
                    self.recording = None
        state = self.network.state_dict()
        for name, value in self.mean.items():
            state[name].copy_(value)
        share_statistics(self.network, self.world)
        self.network.eval()
        return loss

    def epoch(self, epoch: int, step: int, bar: Any) -> tuple[float, int]:
        generator = self.task.generator(7919 * self.plan.seed + epoch + 1)
        losses: list[Tensor] = []
        for inputs, targets in self.task.train.batches(self.batch, generator):
            if step >= self.total or (self.alone and len(targets) == 1):
                break
            self.set_lr(step / self.total)
            inputs, targets = shard(inputs, self.rank, self.world), targets[self.rank :: self.world]
            where = (
                f"{self.plan.label}: batch {len(losses) + 1} of epoch {epoch + 1}: the network, forward or backward,"
            )
            with in_own_code(BadNetwork, where, "Fix it for such inputs, or check this batch of the data."):
                losses.append(self.step(to_device(inputs, self.device), targets.to(self.device)))
            step += 1
            bar.advance()
            if step > self.total * (1 - self.plan.average):
                self.take_average()
            if self.plan.after_batch is not None:
                self.plan.after_batch(self.network, step)
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise Diverged(
                f"{self.plan.label}: the loss of epoch {epoch + 1} is {mean}, in {'bfloat16' if self.half else 'float32'} with "
                f"{self.plan.statistics} batch norm statistics. Lower lr ({self.plan.lr:g}), clip gradients"
                f"{', set precision: float32' * self.half}{', set statistics: moving' * (self.plan.statistics == 'kept')}, "
                "or look for NaN in data and loss."
            )
        LOG.debug("%s: epoch %d, step %d of %d, loss %.4g", self.plan.label, epoch + 1, step, self.total, mean)
        return mean, step

    def step(self, inputs: Any, targets: Tensor) -> Tensor:
        loss = self.gradients(inputs, targets)
        average_gradients(self.network, self.world)
        clip = self.plan.clip
        if clip is None and self.plan.statistics == "kept" and isinstance(self.optimizer, torch.optim.SGD):
            clip = CLIP_OF_KEPT
        if clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.optimizer.step()
        after_step(self.network)
        return loss

    def gradients(self, inputs: Any, targets: Tensor) -> Tensor:
        """Return the loss and leave its gradients in the parameters; replay the step if it was recorded."""
        if self.plan.recorded and self.device.type == "cuda" and self.plan.penalty is None:
            if self.recording is None:
                self.recording = recorded(self.forward_and_back, self.network, inputs, targets)
            if self.recording.fits(inputs, targets):
                return self.recording(inputs, targets)
        self.optimizer.zero_grad(set_to_none=True)
        return self.forward_and_back(inputs, targets)

    def forward_and_back(self, inputs: Any, targets: Tensor) -> Tensor:
        context: Any = contextlib.nullcontext()
        if self.half:
            # Cached bfloat16 weights would be stale in a replay.
            context = torch.autocast(self.device.type, torch.bfloat16, cache_enabled=not self.plan.recorded)
        with context, DilatedInFloat32() if self.half and self.device.type == "cpu" else contextlib.nullcontext():
            outputs = call(self.runner, inputs, self.channels_last)
        loss = self.loss(outputs, inputs, targets)
        total = loss if self.plan.penalty is None else loss + self.plan.penalty(self.network)
        total.backward()
        return loss.detach()

    def loss(self, outputs: Any, inputs: Any, targets: Tensor) -> Tensor:
        plan = self.plan
        outputs = outputs.float() if isinstance(outputs, Tensor) else outputs
        loss = plan.hard * self.task_loss(outputs, targets) if plan.hard else torch.zeros((), device=self.device)
        if not self.teachers or not plan.soft:
            return loss
        soft = ensemble(self.teachers, inputs, plan.temperature, self.half_teachers)
        return loss + plan.soft * distillation(outputs, soft, plan.temperature)

    def task_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        where = f"{self.plan.label}: the task's loss, on outputs of {shape_text(outputs)} and targets of {shape_text(targets)},"
        with in_own_code(BadTask, where, "Check labels, shapes and loss."):
            return self.task.loss(outputs, targets)

    def set_lr(self, done: float) -> None:
        schedule, factor = self.plan.schedule, 1.0
        if callable(schedule):
            factor = schedule(done)
        elif schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * done))
        elif schedule == "step":
            factor = 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
        if done < self.plan.warmup:
            factor *= (done * self.total + 1) / (self.plan.warmup * self.total + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_rate"] * factor

    def take_average(self) -> None:
        self.averaged += 1
        for name, value in self.network.state_dict().items():
            if not isinstance(value, Tensor):
                continue
            if name not in self.mean or not value.is_floating_point():
                self.mean[name] = value.detach().clone()
            else:
                self.mean[name].lerp_(value.detach(), 1 / self.averaged)


def shape_text(value: Any) -> str:
    """Return shape and dtype of a tensor for a message; of anything else its class."""
    return f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def call(network: nn.Module, inputs: Any, channels_last: bool = False) -> Any:
    """Run a network on a tensor, or on a tuple of tensors as its arguments."""
    if isinstance(inputs, tuple):
        return network(*inputs)
    if channels_last and inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return network(inputs)


def half_precision(network: nn.Module, precision: str, device: torch.device, deep: int = 5) -> bool:
    """Return whether to run matrix products in bfloat16.  Raises BadValue for an unknown precision."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise BadValue(f"finetune: precision must be auto, float32 or bfloat16, got {precision!r}.")
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    weights = [m.weight.shape[0] for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))]  # type: ignore[union-attr]
    # For small convolutions, conversions cost more than bfloat16 saves.
    return (
        device.type == "cpu"
        and bool(weights)
        and max(weights) >= 32
        and len(weights) >= deep
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def ready(teacher: nn.Module, device: torch.device) -> nn.Module:
    """Return a frozen copy in eval mode: the teacher itself may be the user's network."""
    return copy.deepcopy(teacher).to(device).eval().requires_grad_(False)


@contextlib.contextmanager
def seeded(seed: int) -> Any:
    """Seed random numbers such as dropout's, and restore the caller's random state afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
