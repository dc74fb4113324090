"""bipolar: pulls binarized weights to -1 and 1."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.binary import Binary
from cortado.task.task import Task
from cortado.training.objectives.penalty import Extra, Penalty


@dataclass(frozen=True)
class Bipolar(Penalty):
    """The sum of 1 - w^2 over the latent floats of binary weights, so they do not oscillate around zero.  Tang et al., 2017.

    Applies to the selected weights that are binarized in training. Values outside -1..1 are not penalised.
    """

    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        attached = {id(form): form for weight in weights for form in weight.form.modules() if isinstance(form, Binary)}
        if not attached:
            raise BadNetwork(
                "objectives/bipolar: none of the selected weights is binarized. Put quantize/compact_binary, binary_net, "
                "xnor or binary_connect before this stage, or widen where."
            )

        def extra() -> Tensor:
            return torch.stack([(1 - form.values.clamp(-1, 1).square()).sum() for form in attached.values()]).sum()

        return extra
