"""norm_gains: an L1 penalty on batch norm gains, which prepares channels for pruning."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.layers.norm import batch_norm_class
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task
from cortado.training.objectives.penalty import Extra, Penalty


@dataclass(frozen=True)
class NormGains(Penalty):
    """The sum of |gain| over the channels of batch norms.  Liu et al., 2017 (network slimming).

    Applies to the gains that `where` names ("*bn*.weight"), or to all if it names none.
    """

    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        gains = [weight for weight in weights if is_gain(weight)]
        gains = gains or [weight for weight in view.all_weights if is_gain(weight)]
        if not gains:
            raise BadNetwork("objectives/norm_gains: the network has no batch norm with gains. Use nuclear_norm.")

        def extra() -> Tensor:
            return torch.stack([getattr(one.layer, one.name).abs().sum() for one in gains]).sum()

        return extra


def is_gain(weight: Weight) -> bool:
    return batch_norm_class(weight.layer) is not None and weight.name == "weight"
