"""finalize: end the training of rounded weights and activations - what was latent becomes what the file holds."""

from dataclasses import dataclass

from cortado.methods.method import Method
from cortado.network.view import View
from cortado.task.task import Task
from cortado.training.finalize import finalize


@dataclass(frozen=True)
class Finalize(Method):
    """Replace weights and activations that are rounded again at every step by the rounded ones, for good.

    Scales are kept to three digits (bfloat16). Runs by itself after the last stage of a recipe; a stage of its own is
    needed where another method should work on the rounded values. With `where` only the weights that it takes are
    finalized, and no activations.
    """

    def apply(self, view: View, task: Task) -> None:
        if self.where == type(self).where:
            finalize(view.network)
            return
        for weight in view.weights(self.where):
            form = weight.form
            made = form.finalize()
            if made is not form:
                weight.set_form(made)
