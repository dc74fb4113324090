"""Magnitude L2: the squared weight over its layer's mean square, comparable across layers."""

from torch import Tensor

from cortado.importance.importance import Importance
from cortado.network.coupling.groups import Group
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


class MagnitudeL2(Importance):
    """w^2 / mean(w^2) of the layer."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        squares = [weight.dense() ** 2 for weight in weights]
        return [square / square.mean().clamp(min=1e-30) for square in squares]

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        """Return the squared L2 norm of what produces each unit, over its group's mean: comparable across widths."""
        return [units / units.mean().clamp(min=1e-30) for units in super().of_units(groups, view, task)]
