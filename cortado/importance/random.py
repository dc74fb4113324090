"""Random: the control that every other measure has to beat."""

import torch
from torch import Tensor

from cortado.importance.importance import Importance
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


class Random(Importance):
    """Uniform random numbers from the task's seed."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        generator = task.generator(17)
        return [torch.rand(weight.shape, generator=generator) for weight in weights]
