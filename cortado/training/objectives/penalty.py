"""Penalty: what training may add to its loss, so that weights can be cut or factored later.  One file a penalty."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

import cortado.training.objectives
from cortado.lookup import lookup
from cortado.network.view import View, Weight
from cortado.task.task import Task

Extra = Callable[[nn.Module], Tensor]
"""The network that is trained -> a scalar with a gradient, 0 or more."""


class Penalty(ABC):
    """Pulls weights towards what can be cut away.  It is multiplied by a strength and added to the loss of every step."""

    @abstractmethod
    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        """The penalty of these weights as a function, called at every step of a training of `view.network`.

        Raises BadNetwork when the network has nothing that it could act on.
        """


def penalty(name: str) -> Penalty:
    """The penalty called `name`: class LowRank of penalties/low_rank.py is "low_rank", your own "my_pkg.my_file:Mine".

    Raises BadRecipe for a name that is not known, with near ones.
    """
    found: Penalty = lookup(cortado.training.objectives, Penalty, name)
    return found
