"""bipolar: pulls binarized weights to -1 and 1."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.latent import Latent
from cortado.task.task import Task
from cortado.training.objectives.penalty import Extra, Penalty


@dataclass(frozen=True)
class Bipolar(Penalty):
    """The sum of 1 - w^2 over the latent floats of binary weights, so they do not oscillate around zero.  Tang et al., 2017.

    Applies to the selected weights that are binarized in training. Values outside -1..1 are not penalised.
    """

    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        attached = {id(form): form for weight in weights for form in latents(weight) if is_binary(form)}
        if not attached:
            raise BadNetwork(
                "objectives/bipolar: none of the selected weights is binarized. Put quantize/compact_binary, binary_net, "
                "xnor or binary_connect before this stage, or widen where."
            )

        def extra() -> Tensor:
            return torch.stack([(1 - form.values.clamp(-1, 1).square()).sum() for form in attached.values()]).sum()

        return extra


def latents(weight: Weight) -> list[Latent]:
    """Return the forms in a weight's form that are rounded at every step."""
    return [part for part in weight.form.modules() if isinstance(part, Latent)]


def is_binary(form: Latent) -> bool:
    """Return whether all values are rounded to a sign times a scale."""
    lattice = form.lattice()
    return lattice is not None and bool((lattice.steps().abs() == 1).all())
