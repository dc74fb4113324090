"""reinit: the network as it is now, from scratch - fresh random values, then training."""

from dataclasses import dataclass

from cortado.methods.finetune import Finetune
from cortado.methods.rewind import Rewind
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class Reinit(Finetune):
    """Draw new values for everything, in the shape and under the masks there are, and train.  Liu et al., 2019.

    The control of a cut: what training from scratch reaches in the same shape. With as many epochs as the plain
    network was trained for it is the paper's Scratch-E; with as many more as a step is cheaper, its Scratch-B.
    With `where`, only the weights that it takes begin again and learn.
    """

    def apply(self, view: View, task: Task) -> None:
        Rewind(where=self.where, to="random").apply(view, task)
        view.forget()
        super().apply(view, task)
