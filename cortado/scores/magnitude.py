"""Magnitude: small weights matter least.  L1 (absolute value); L2 (its square) ranks alike inside a layer."""

from torch import Tensor

from cortado.network.view import View, Weight
from cortado.scores.score import Score
from cortado.task import Task


class Magnitude(Score):
    """|w|.  Han, Pool, Tran, Dally, 2015."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        return [weight.dense().abs() for weight in weights]
