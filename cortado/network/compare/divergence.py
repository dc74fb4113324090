"""Divergence: how far the answers of two networks are apart, in nats."""

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
    """What a network gave, its first tensor, as (rows, classes): the last axis, of maps (N, classes, H, W ...) the second,
    pixel by pixel; (rows, 1) where each answer is one number.  Gradients pass.
    """
    found = tensors_in(outputs)[0].float()
    found = found.movedim(1, -1) if found.dim() > 3 else found
    return found.reshape(-1, found.shape[-1] if found.dim() > 1 else 1)


def output_rows(network: nn.Module, inputs: Any) -> Tensor:
    """What a network gives for `inputs` in eval mode, as in `rows_of`."""
    with eval_mode(network):
        return rows_of(call_with(network, inputs))


def divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Kullback-Leibler of each row of answers from the one wanted, in nats; of single numbers half the squared error."""
    if wanted.shape[-1] == 1:
        return 0.5 * (found - wanted).square().sum(-1)
    original, other = wanted.log_softmax(-1), found.log_softmax(-1)
    return (original.exp() * (original - other)).sum(-1)


@dataclass(frozen=True)
class Divergence:
    """What a nat is for a task's answers.

    Scores of classes (`variance` None) stand for the softmax over them, and the divergence is Kullback-Leibler's. Numbers
    (regression, embeddings, depth maps) stand for Gaussians around them, each of the same `variance`: that of the plain
    network's own answers over the data, about the mean of each entry. Their divergence is half the squared error over
    it, a mean over the entries of an answer: half the share of variance that a change loses, whatever the answers' unit,
    their width, or the seldom entry that says nothing. Squared-error losses and cosines of centred embeddings go with it.
    """

    variance: float | None = None

    def between(self, wanted: Tensor, found: Tensor) -> Tensor:
        """(rows,): how far each answer is from the one wanted; both (rows, classes or numbers)."""
        if self.variance is None:
            return divergence(wanted, found)
        return 0.5 * (found - wanted).square().mean(-1) / self.variance

    def slope(self, rows: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """A number whose squared gradient is, on average, that with respect to anything of the answers' divergence, summed.

        Random signs xi, one for each entry of `rows` (rows, classes): v . rows with v = sqrt(p) xi - p (sqrt(p) . xi) and
        p = softmax(rows / temperature), as the mean of v v^T is the Hessian of KL; xi over the deviation for numbers.
        """
        xi = torch.randint(0, 2, rows.shape, generator=generator).to(rows) * 2 - 1
        if self.variance is not None:
            return (rows * xi).sum() / (self.variance * rows.shape[-1]) ** 0.5
        p = (rows.detach() / temperature).softmax(-1)
        root = p.sqrt()
        return (rows * (root * xi - p * (root * xi).sum(-1, keepdim=True))).sum()


def divergence_of(wanted: Tensor, kind: str = "classes") -> Divergence:
    """What a nat is, from the original answers (rows, classes or numbers) and `Task.answers`; one number is never a class.

    The variance is 1 where the answers are all the same.
    """
    if kind == "classes" and wanted.shape[-1] > 1:
        return Divergence()
    variance = float(wanted.double().var(0, unbiased=False).mean())
    return Divergence(variance if variance > 0 else 1.0)


def divergence_for(original: nn.Module, task: Task) -> Divergence:
    """What a nat is for a task, from a few of the original network's answers on calibration data."""
    assert task.calibration is not None
    found: list[Tensor] = []
    for inputs, _ in task.calibration.first(SPREAD_SAMPLES).batches(32):
        found.append(output_rows(original, moved(inputs, device_of(original))))
        if divergence_of(found[0], task.answers).variance is None:
            return Divergence()
    return divergence_of(torch.cat(found), task.answers)
