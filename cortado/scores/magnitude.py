"""Magnitude: small weights matter least.  L1 (absolute value); L2 (its square) ranks alike inside a layer."""

from torch import Tensor

from cortado.groups.groups import Group
from cortado.network.view import View, Weight
from cortado.scores.score import Score
from cortado.task import Task


class Magnitude(Score):
    """|w|.  Han, Pool, Tran, Dally, 2015."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        return [weight.dense().abs() for weight in weights]

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        """The L1 norm of what produces a unit (Li et al., 2017), over its group's mean: groups can be compared."""
        return [units / units.mean().clamp(min=1e-30) for units in super().of_units(groups, view, task)]
