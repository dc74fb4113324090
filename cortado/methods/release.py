"""release: turn weights into plain floats again, at their current values."""

from dataclasses import dataclass

from cortado.methods.method import Method
from cortado.network.view import View
from cortado.parts.forms.attach import attached_names
from cortado.parts.forms.dense import Dense
from cortado.task.task import Task


@dataclass(frozen=True)
class Release(Method):
    """Remove masks, codes and codebooks; pruned weights start at zero.

    The third step of dense-sparse-dense training (Han et al., 2017) is release followed by finetune.
    """

    def apply(self, view: View, task: Task) -> None:
        for weight in view.weights(self.where):
            if weight.name in attached_names(weight.layer):
                weight.set_form(Dense(weight.dense()))
