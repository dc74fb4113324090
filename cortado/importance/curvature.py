"""Curvature: Optimal Brain Damage, half the diagonal second derivative times the squared weight."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cortado.importance.importance import Importance
from cortado.network.compare.divergence import divergence_for
from cortado.network.coupling.groups import Group
from cortado.network.statistics.channel_gradients import ChannelGradients
from cortado.network.statistics.gradients import gradients
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.outputs.outputs import Outputs
from cortado.task.task import Task

IMAGES = 512


class Curvature(Importance):
    """h w^2 / 2, the loss increase from zeroing a weight at zero gradient.  LeCun, Denker, Solla, 1990.

    h is the diagonal of the generalised Gauss-Newton matrix, as in LeCun, at softmax temperature T. It is estimated
    without bias as the squared gradient of v . outputs per sample, with v = sqrt(p) xi - p (sqrt(p) . xi),
    p = softmax(outputs / T) and random signs xi. T = 2 by default, because on memorised samples p (1 - p) at T = 1 is
    nearly zero. Sequences and maps have one softmax per position; where `Task.outputs` are numbers, or each output is a
    single number, squared error is used instead.

    `shrink` times the tensor's mean h is added to every h, since a mean over few samples of a curvature that changes
    during pruning is noisy. Without it, large weights that happen to be inactive on the samples are pruned first, and
    the loss rises more than with magnitude pruning.
    """

    temperature = 2.0
    shrink = 2.0

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        values = [weight.dense() for weight in weights]
        found = [h.to(w) for h, w in zip(self.diagonal(weights, view, task), values, strict=True)]
        return [(h + self.shrink * h.mean()) * w**2 / 2 for h, w in zip(found, values, strict=True)]

    def diagonal(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        """Return h for each weight: the mean over calibration samples, computed one sample at a time."""
        assert task.calibration is not None
        slope = self.slope(task.generator(23), divergence_for(view.network, task))
        sums = [torch.zeros(weight.shape) for weight in weights]
        data = task.calibration.first(IMAGES)
        for found in gradients(view, weights, data, 1, slope):
            for total, gradient in zip(sums, found, strict=True):
                total += gradient.cpu() ** 2
        return [total / len(data) for total in sums]

    def slope(self, signs: torch.Generator, kind: Outputs) -> Callable[[Any, Tensor], Tensor]:
        """Return v . outputs as a loss, summed over the batch; all positions of a sample (sequence, map) count as one."""

        def of(outputs: Any, targets: Tensor) -> Tensor:
            return kind.slope(kind.rows(outputs), self.temperature, signs)

        return of

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        """Return half the mean squared loss change when each unit outputs its mean instead of its activation.

        The unit is treated as one gate: 1/2 mean_n (sum over positions and consumers of
        gradient x (activation - mean))^2. Moment matching restores the mean afterwards. A group with consumers other
        than linear or convolution layers uses the sum over its single weights.
        """
        assert task.calibration is not None
        data, channel_gradients = task.calibration.first(IMAGES), ChannelGradients(view, groups)
        seen = [number for number in range(len(groups)) if channel_gradients.known(number)]
        sums = [torch.zeros(group.count) for group in groups]
        slope = self.slope(task.generator(23), divergence_for(view.network, task))
        for found in channel_gradients.slopes(data, 64, slope, channel_gradients.means(data, 64)) if seen else ():
            for total, changes in zip(sums, found, strict=True):
                total += (changes**2).sum(0).cpu() / 2
        others = [group for number, group in enumerate(groups) if number not in seen]
        rest = iter(super().of_units(others, view, task) if others else [])
        return [sums[n] / len(data) if n in seen else next(rest) for n in range(len(groups))]
