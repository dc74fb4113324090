"""release: turn weights into plain floats again, at their current values."""

from dataclasses import dataclass
from typing import Any

from cortado.methods.method import Method
from cortado.methods.needs import Leaves, Need
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.attach import attached_names
from cortado.parts.forms.dense import Dense
from cortado.task.task import Task


def in_forms(method: Any, view: View, task: Task) -> list[Weight]:
    """Return the chosen weights whose form is more than floats."""
    chosen = view.weights(method.where)
    return [w for w in chosen if w.name in attached_names(w.layer) and not w.form.only_floats]


@dataclass(frozen=True)
class Release(Method):
    """Remove masks, codes and codebooks; pruned weights start at zero.

    The third step of dense-sparse-dense training (Han et al., 2017) is release followed by finetune.
    """

    needs = (Need("a weight in a form that is more than floats", in_forms),)
    leaves = (Leaves.RELEASED,)

    def apply(self, view: View, task: Task) -> None:
        for weight in in_forms(self, view, task):
            weight.set_form(Dense(weight.dense()))
