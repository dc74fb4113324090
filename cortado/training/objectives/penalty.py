"""Penalty: a term added to the training loss so that weights can be pruned or factored later.  One file per penalty."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

import cortado.training.objectives
from cortado.lookup import lookup
from cortado.network.view import View, Weight
from cortado.task.task import Task

Extra = Callable[[nn.Module], Tensor]
"""Maps the network in training to a scalar >= 0 with a gradient."""


class Penalty(ABC):
    """Pulls weights towards a structure that can be pruned.  Multiplied by a strength and added to the loss at every step."""

    @abstractmethod
    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        """Return the penalty of these weights as a function, called at every step of a training of `view.network`.

        Raises BadNetwork if it applies to nothing in the network.
        """


def penalty(name: str) -> Penalty:
    """Return the penalty by name: "nuclear_norm" is NuclearNorm in objectives/nuclear_norm.py, "my_pkg.mine:Mine" yours.

    Raises BadRecipe for an unknown name, suggesting close ones.
    """
    found: Penalty = lookup(cortado.training.objectives, Penalty, name)
    return found
