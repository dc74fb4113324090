"""Taylor: the first-order change of the loss when a weight is set to zero."""

import torch
from torch import Tensor

from cortado.network.gradients import gradients
from cortado.network.view import View, Weight
from cortado.scores.score import Score
from cortado.task import Task


class Taylor(Score):
    """|g w|, the mean over calibration batches of 16.  Molchanov et al., 2017, for single weights."""

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
