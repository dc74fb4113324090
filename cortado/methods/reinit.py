"""reinit: train the current network from scratch."""

from dataclasses import dataclass

from cortado.methods.finetune import Finetune
from cortado.methods.rewind import Rewind
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class Reinit(Finetune):
    """Re-initialise all values, keep shapes and masks, and train.  Liu et al., 2019.

    The control for pruning: the accuracy of the same architecture trained from scratch. With as many epochs as the
    original network had, it is the paper's Scratch-E; with more in proportion to the cheaper steps, Scratch-B. With
    `where`, only the selected weights are re-initialised and trained.
    """

    def apply(self, view: View, task: Task) -> None:
        Rewind(where=self.where, to="random").apply(view, task)
        view.forget()
        super().apply(view, task)
