"""Known data: validation data that a network has learned by heart, and copies of them on which it does as on new data."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cortado.errors import BadTask, in_own_code
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import tensors_in, to_device
from cortado.task.data import Data
from cortado.task.measure import run
from cortado.task.shifts import LIMITED, is_pictures, is_waves
from cortado.task.task import Task

SAMPLES, LARGE, FEWEST, NUMBERS = 1_000, 200, 100, 6_000_000
"""Samples of each part whose losses are looked at: at most, where they are large (together more than NUMBERS), and at least."""
BLOCK = 20
"""Samples for one loss; the spread of these losses gives the error of their mean."""
SURE = 3.0
"""Standard errors by which the loss on test data has to be larger than on validation data."""
NEAR = 0.25
"""Largest share of the way from the loss on training data to that on test data, at which validation data count as known."""
DOUBLED, HALVED = 11, 5
"""How often the noise is made stronger until the loss is too large, from LEAST on, and then how often the gap is halved."""
LEAST = 1 / 128
"""The weakest noise, as a share of what values span: 255 of pictures, the deviation of anything else."""


@dataclass(frozen=True)
class MeanLoss:
    """The mean loss of a network on some data, and its standard error."""

    mean: float
    error: float


@dataclass(frozen=True)
class Losses:
    """A network's mean losses on a task's training, validation and test data."""

    train: MeanLoss
    validation: MeanLoss
    test: MeanLoss

    @property
    def known(self) -> bool:
        """Return whether the network seems to know the validation data: it does there as on what it was trained on, and
        surely worse on test data."""
        gap = self.test.mean - self.validation.mean
        apart = gap > SURE * math.hypot(self.test.error, self.validation.error)
        return apart and self.validation.mean - self.train.mean <= NEAR * (self.test.mean - self.train.mean)

    def text(self) -> str:
        """Return the sentence that says so."""
        return (
            f"task: the network seems to know the validation data by heart: its mean loss is {self.validation.mean:.3g} there, "
            f"{self.train.mean:.3g} on training data and {self.test.mean:.3g} on test data."
        )


@dataclass(frozen=True)
class Judged:
    """A task whose validation data are like new ones to the network, and what was noticed; "" for nothing."""

    task: Task
    note: str = ""


def judged_as_new(network: nn.Module, task: Task) -> Judged:
    """Return the task, with noisy copies in place of validation data that the network knows by heart.

    A compressed network may lose little where the original was trained, and more on new data. The noise is as strong as makes
    the original's mean loss that on test data. These tell one number, about the original network: which compressed network is
    better, is still decided on validation data alone. Where inputs are no single tensor of numbers, the note asks for other
    validation data. Trials, losses that need training mode, and fewer than FEWEST samples tell nothing.
    """
    if task.trial or min(len(task.train), len(task.validation), len(task.test)) < FEWEST:
        return Judged(task)
    try:
        found = Losses(*(mean_loss(network, data, task) for data in (task.train, task.validation, task.test)))
    except BadTask:
        return Judged(task)
    if not found.known:
        return Judged(task)
    copies = copies_like_new(network, task, found.test.mean)
    if copies is None:
        lost = "Limits that are kept there may be missed on new data: give validation data that it has not seen."
        return Judged(task, f"{found.text()} {lost}")
    data, loss = copies
    way_out = f"Candidates are judged on copies with noise, on which its loss is {loss:.3g}, as on new data."
    return Judged(replace(task, validation=data), f"{found.text()} {way_out}")


def mean_loss(network: nn.Module, data: Data, task: Task) -> MeanLoss:
    """Return the mean loss in eval mode on the first samples as they are, without augmentation.

    Raises BadTask for a loss that cannot be computed so, or is not finite.
    """
    found, device = list[float](), own_device(network)
    with eval_mode(network):
        for inputs, targets in data.original().first(count_for(task)).batches(BLOCK):
            outputs = run(network, to_device(inputs, device))
            with in_own_code(BadTask, "task: the loss, in eval mode,", "Correct it."):
                found.append(float(task.loss(outputs, to_device(targets, device))))
    losses = torch.tensor(found, dtype=torch.float64)
    if not bool(torch.isfinite(losses).all()):
        raise BadTask("task: the loss of the original network is not finite. Correct the loss.")
    return MeanLoss(float(losses.mean()), float(losses.std()) / math.sqrt(len(losses)))


def count_for(task: Task) -> int:
    """Return how many samples of each part are looked at."""
    numbers = sum(part.numel() for part in tensors_in(task.example)) // 2
    return min(SAMPLES, max(LARGE, NUMBERS // max(1, numbers)))


def copies_like_new(network: nn.Module, task: Task, wanted: float) -> tuple[Data, float] | None:
    """Return validation samples with as much noise as raises the mean loss to `wanted`, and that loss.

    None where no noise can be added, or it does not raise the loss as far.
    """
    some = task.validation.original().first(LIMITED)
    if not isinstance(some.inputs, Tensor) or not takes_noise(some.inputs):
        return None

    def loss(strength: float) -> float:
        return mean_loss(network, noisy_copy(some.first(count_for(task)), strength, task), task).mean

    strength = next((found for step in range(DOUBLED) if loss(found := LEAST * 2**step) >= wanted), None)
    if strength is None:
        return None
    low = strength / 2 if strength > LEAST else 0.0
    for _ in range(HALVED):
        middle = (low + strength) / 2
        low, strength = (low, middle) if loss(middle) >= wanted else (middle, strength)
    return noisy_copy(some, strength, task), loss(strength)


def takes_noise(inputs: Tensor) -> bool:
    """Return whether noise can be added: to pictures in bytes, waves of 16 bits, and floats."""
    return inputs.is_floating_point() or is_pictures(inputs) or is_waves(inputs)


def noisy_copy(data: Data, strength: float, task: Task) -> Data:
    """Return copies of samples in memory with normal noise of a `strength`, the same each time for a task's seed."""
    inputs, generator = data.inputs, task.generator(37)
    assert isinstance(inputs, Tensor)
    noise = strength * torch.randn(inputs.shape, generator=generator)
    if inputs.is_floating_point():
        return Data(inputs + (noise * inputs.std()).to(inputs), data.targets, data.prepare)
    if is_pictures(inputs):
        moved = (inputs.float() + 255 * noise).round().clamp(0, 255)
    else:
        moved = (inputs.float() + float(inputs.float().std()) * noise).round().clamp(-(2**15), 2**15 - 1)
    return Data(moved.to(inputs.dtype), data.targets, data.prepare)
