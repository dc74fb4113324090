"""Penalty: an objective that pulls weights towards a structure that can be pruned or factored later."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from cortado.errors import BadValue
from cortado.knobs.knob import knob
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task
from cortado.training.objectives.objective import AddedPenalty, Objective, Terms, TrainingStep

Extra = Callable[[], Tensor]
"""Returns the penalty of the weights as they are: a scalar >= 0 with a gradient."""


@dataclass(frozen=True)
class Penalty(Objective):
    """A function of the weights that a stage selects; it reads neither outputs nor taps."""

    weight: float = knob(1e-4, low=0.0, help="factor of the penalty in the loss")
    growing: bool = knob(False, help="increase the weight from 0 during training")

    @abstractmethod
    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        """Return the penalty of these weights as a function, called at every step of a training of `view.network`.

        Raises BadNetwork if it applies to nothing in the network.
        """

    def on(self, view: View, weights: list[Weight], task: Task) -> Objective:
        extra, growing = self.of(view, weights, task), self.growing
        return AddedPenalty(self.weight, self.name(), lambda step: step.progress * extra() if growing else extra())

    def terms(self, step: TrainingStep) -> Terms:
        raise BadValue(
            f"objectives/{self.name()}: it has no weights yet. Train with what on(view, view.weights(), task) returns."
        )
