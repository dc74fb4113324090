"""Taylor: the first-order change of the loss when a weight is set to zero."""

import torch
from torch import Tensor

from cortado.importance.importance import Importance
from cortado.network.coupling.groups import Group
from cortado.network.statistics.channel_gradients import ChannelGradients
from cortado.network.statistics.gradients import gradients
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


class Taylor(Importance):
    """|g w|, averaged over calibration batches of 16.  Molchanov et al., 2017, for single weights."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        assert task.calibration is not None
        values = [weight.dense() for weight in weights]
        sums = [torch.zeros_like(value) for value in values]
        batches = 0
        for found in gradients(view, weights, task.calibration.first(512), 16, task.loss):
            for total, gradient, value in zip(sums, found, values, strict=True):
                total += (gradient * value).abs()
            batches += 1
        return [total / batches for total in sums]

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        """Return the mean over samples of |gradient x activation|, summed over each unit's positions and consumers.

        Molchanov et al., 2017; divided by the group's L2 norm, as in the paper, so that layers can be compared.
        """
        assert task.calibration is not None
        data, channel_gradients = task.calibration.first(512), ChannelGradients(view, groups)
        seen = [number for number in range(len(groups)) if channel_gradients.known(number)]
        sums = [torch.zeros(group.count) for group in groups]

        def slope(outputs: Tensor, targets: Tensor) -> Tensor:
            return task.loss(outputs, targets) * len(targets)

        for found in channel_gradients.slopes(data, 64, slope, {}) if seen else ():
            for total, changes in zip(sums, found, strict=True):
                total += changes.abs().sum(0).cpu()
        others = [group for number, group in enumerate(groups) if number not in seen]
        rest = iter(super().of_units(others, view, task) if others else [])
        worth = [sums[n] / len(data) if n in seen else next(rest) for n in range(len(groups))]
        return [units / units.norm().clamp(min=1e-30) for units in worth]
