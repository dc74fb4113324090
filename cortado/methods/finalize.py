"""finalize: end quantized training by replacing latent weights with the rounded ones that the file stores."""

from dataclasses import dataclass
from typing import Any

from cortado.methods.method import Method
from cortado.methods.needs import Leaves, Need
from cortado.network.finalize import finalize, in_training
from cortado.network.view import View
from cortado.task.task import Task


def rounds_at_each_step(method: Any, view: View, task: Task) -> bool:
    """Return whether a part of the network, or a form of the chosen weights, is still rounded at each step."""
    if method.where == type(method).where:
        return in_training(view.network)
    return any(in_training(weight.form) for weight in view.weights(method.where))


@dataclass(frozen=True)
class Finalize(Method):
    """Replace weights and activation quantizers that round at every step by their final rounded values.

    Scales are rounded to three digits (bfloat16). Runs automatically after the last stage of a recipe; add it as a stage
    only if a later method should work on the rounded values. With `where`, only the selected weights are finalized, and
    no activations.
    """

    needs = (Need("a weight or an activation that is rounded at every step", rounds_at_each_step),)
    leaves = (Leaves.CODES,)

    def apply(self, view: View, task: Task) -> None:
        if self.where == type(self).where:
            finalize(view.network)
            return
        for weight in view.weights(self.where):
            form = weight.form
            made = form.finalize()
            if made is not form:
                weight.set_form(made)
