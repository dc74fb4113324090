"""reinit: train the current network from scratch."""

import copy
from dataclasses import dataclass

from cortado.knobs.nested import flat_knobs
from cortado.methods.learn import learn
from cortado.methods.learns_from import LearnsFrom
from cortado.methods.needs import Leaves
from cortado.methods.rewind import Rewind
from cortado.network.view import View
from cortado.task.task import Task


@flat_knobs
@dataclass(frozen=True)
class Reinit(LearnsFrom):
    """Re-initialise all values, keep shapes and masks, and train.  Liu et al., 2019.

    The control for pruning: the accuracy of the same architecture trained from scratch. With as many epochs as the
    original network had, it is the paper's Scratch-E; with more in proportion to the cheaper steps, Scratch-B. With
    `where`, only the selected weights are re-initialised and trained. With `teacher: before` it learns from the network that
    it replaces, as each round of a noisy student does.
    """

    trains = True
    leaves = (Leaves.FLOATS,)

    def apply(self, view: View, task: Task) -> None:
        found = copy.deepcopy(view.network)
        Rewind(where=self.where, to="random").apply(view, task)
        view.forget()
        learn(view, task, self.training, self.objectives, self.teacher, self.where, self.name(), found)
