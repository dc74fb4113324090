"""release: let weights be plain floats again, from the values they have now."""

from dataclasses import dataclass

from cortado.forms.dense import Dense
from cortado.forms.hold import held_names
from cortado.method import Method
from cortado.network.view import View
from cortado.task import Task


@dataclass(frozen=True)
class Release(Method):
    """Take masks, codes and codebooks off; what was zero starts at zero.

    The third step of dense-sparse-dense training (Han et al., 2017) is release followed by tune.
    """

    def apply(self, view: View, task: Task) -> None:
        for weight in view.weights(self.where):
            if weight.name in held_names(weight.layer):
                weight.put(Dense(weight.dense()))
