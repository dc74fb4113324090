"""settle: end the training of rounded weights and signals - what was latent becomes what the file holds."""

from dataclasses import dataclass

from cortado.method import Method
from cortado.network.settling import settle
from cortado.network.view import View
from cortado.task import Task


@dataclass(frozen=True)
class Settle(Method):
    """Replace weights and signals that are rounded anew at every step by the rounded ones, for good.

    Scales are kept to three digits (bfloat16). Runs by itself after the last stage of a recipe; a stage of its own is
    needed where another method should work on the rounded values. With `where` only the weights that it takes are
    settled, and no signals.
    """

    def apply(self, view: View, task: Task) -> None:
        if self.where == type(self).where:
            settle(view.network)
            return
        for weight in view.weights(self.where):
            form = weight.form
            made = form.settle()
            if made is not form:
                weight.put(made)
