"""Divergence: the KL divergence between the outputs of two networks, in nats."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.network.graph.trace import call_with, device_of, moved
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import tensors_in
from cortado.task.task import Task

SPREAD_SAMPLES = 128


def rows_of(outputs: Any) -> Tensor:
    """Return a network's first output tensor as (rows, classes), pixel by pixel for maps (N, classes, H, W ...);
    classes are the last axis, for maps the second. (rows, 1) where each output is one number.  Gradients pass.
    """
    found = tensors_in(outputs)[0].float()
    found = found.movedim(1, -1) if found.dim() > 3 else found
    return found.reshape(-1, found.shape[-1] if found.dim() > 1 else 1)


def output_rows(network: nn.Module, inputs: Any) -> Tensor:
    """Return the network's output for `inputs` in eval mode, as by `rows_of`."""
    with eval_mode(network):
        return rows_of(call_with(network, inputs))


def divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Return each row's KL divergence from the output wanted, in nats; half the squared error for scalars."""
    if wanted.shape[-1] == 1:
        return 0.5 * (found - wanted).square().sum(-1)
    original, other = wanted.log_softmax(-1), found.log_softmax(-1)
    return (original.exp() * (original - other)).sum(-1)


@dataclass(frozen=True)
class Divergence:
    """The unit of divergence for a task's outputs.

    Class scores (`variance` None) stand for their softmax, and the divergence is KL. Numbers (regression, embeddings,
    depth maps) stand for Gaussians around them, all with the same `variance`: that of the original network's outputs
    on the data, about each entry's mean. Their divergence is half the squared error divided by it, averaged over the
    entries of an output: half the share of variance that a change loses, independent of units, width and entries that
    carry no information. It agrees with squared-error losses and with cosines of centered embeddings.
    """

    variance: float | None = None

    def between(self, wanted: Tensor, found: Tensor) -> Tensor:
        """Return (rows,): the divergence of each output from the one wanted; both (rows, classes or numbers)."""
        if self.variance is None:
            return divergence(wanted, found)
        return 0.5 * (found - wanted).square().mean(-1) / self.variance

    def slope(self, rows: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Return a scalar whose squared gradient is, in expectation, the squared gradient of the outputs' divergence,
        summed.

        Draws random signs xi for each entry of `rows` (rows, classes): v . rows with v = sqrt(p) xi - p (sqrt(p) .
        xi) and p = softmax(rows / temperature), since the mean of v v^T is the Hessian of KL; xi over the deviation
        for numbers.
        """
        xi = torch.randint(0, 2, rows.shape, generator=generator).to(rows) * 2 - 1
        if self.variance is not None:
            return (rows * xi).sum() / (self.variance * rows.shape[-1]) ** 0.5
        p = (rows.detach() / temperature).softmax(-1)
        root = p.sqrt()
        return (rows * (root * xi - p * (root * xi).sum(-1, keepdim=True))).sum()


def divergence_of(wanted: Tensor, kind: str = "classes") -> Divergence:
    """Return the divergence for the original outputs (rows, classes or numbers) and `Task.answers`; one number is
    never a class.

    The variance is 1 where all outputs are equal.
    """
    if kind == "classes" and wanted.shape[-1] > 1:
        return Divergence()
    variance = float(wanted.double().var(0, unbiased=False).mean())
    return Divergence(variance if variance > 0 else 1.0)


def divergence_for(original: nn.Module, task: Task) -> Divergence:
    """Return the divergence for a task, from some of the original network's outputs on calibration data."""
    assert task.calibration is not None
    found: list[Tensor] = []
    for inputs, _ in task.calibration.first(SPREAD_SAMPLES).batches(32):
        found.append(output_rows(original, moved(inputs, device_of(original))))
        if divergence_of(found[0], task.answers).variance is None:
            return Divergence()
    return divergence_of(torch.cat(found), task.answers)
