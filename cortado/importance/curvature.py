"""Curvature: Optimal Brain Damage - half the diagonal second derivative times the squared weight."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cortado.importance.importance import Importance
from cortado.network.compare.divergence import Divergence, divergence_for, rows_of
from cortado.network.coupling.groups import Group
from cortado.network.statistics.channel_gradients import ChannelGradients
from cortado.network.statistics.gradients import gradients
from cortado.network.view import View, Weight
from cortado.task.task import Task

IMAGES = 512


class Curvature(Importance):
    """h w^2 / 2, the loss that setting a weight to zero costs when the gradient is zero.  LeCun, Denker, Solla, 1990.

    h is the diagonal of the generalised Gauss-Newton matrix, as LeCun's, at softmax temperature T: for each sample the
    squared gradient of v . outputs, with v = sqrt(p) xi - p (sqrt(p) . xi), p = softmax(outputs / T) and xi random
    signs, whose mean is that diagonal exactly. T = 2 by default: on samples that the network has learned by heart
    p (1 - p) at T = 1 is nearly zero and says little. A sequence or a map has a softmax at each place; where `Task.answers`
    are numbers, or each is a single one, squared errors count.

    The score adds `shrink` times the mean h of the weight's tensor to every h: a mean over few samples, of a curvature
    that moves as weights go, is believed only so far. With none, weights that are silent on the samples go first
    however large they are, and the loss rises more than by magnitude.
    """

    temperature = 2.0
    shrink = 2.0

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        values = [weight.dense() for weight in weights]
        found = [h.to(w) for h, w in zip(self.diagonal(weights, view, task), values, strict=True)]
        return [(h + self.shrink * h.mean()) * w**2 / 2 for h, w in zip(found, values, strict=True)]

    def diagonal(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        """h for each weight: the mean over calibration samples, one sample at a time."""
        assert task.calibration is not None
        slope = self.slope(task.generator(23), divergence_for(view.network, task))
        sums = [torch.zeros(weight.shape) for weight in weights]
        data = task.calibration.first(IMAGES)
        for found in gradients(view, weights, data, 1, slope):
            for total, gradient in zip(sums, found, strict=True):
                total += gradient.cpu() ** 2
        return [total / len(data) for total in sums]

    def slope(self, signs: torch.Generator, divergence: Divergence) -> Callable[[Any, Tensor], Tensor]:
        """v . answers, summed over the batch, with a sample's answers (a sequence, a map) counting as one together."""

        def of(outputs: Any, targets: Tensor) -> Tensor:
            rows = rows_of(outputs)
            return divergence.slope(rows, self.temperature, signs) / (len(rows) / len(targets)) ** 0.5

        return of

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        """Half the mean square of the change when a unit gives its mean instead of its activation.

        The whole unit is one gate, so that no entry is taken alone: 1/2 mean_n (sum over positions and consumers of
        gradient x (activation - mean))^2. The mean itself is given back by moment matching afterwards. A group whose
        consumers are not all linear or convolution layers has the sum over its single weights.
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
