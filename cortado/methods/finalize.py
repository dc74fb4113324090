"""finalize: end quantized training by replacing latent weights with the rounded ones that the file stores."""

from dataclasses import dataclass

from cortado.methods.method import Method
from cortado.network.finalize import finalize
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class Finalize(Method):
    """Replace weights and activation quantizers that round at every step by their final rounded values.

    Scales are rounded to three digits (bfloat16). Runs automatically after the last stage of a recipe; add it as a stage
    only if a later method should work on the rounded values. With `where`, only the selected weights are finalized, and
    no activations.
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
