"""group_lasso_positions: the norms of kernel columns, which prepares them for prune/positions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.layers.kinds import is_convolution
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task
from cortado.training.objectives.penalty import Extra, Penalty

TINY = 1e-12


@dataclass(frozen=True)
class GroupLassoPositions(Penalty):
    """The sum over input channels and kernel positions of the L2 norm over filters.  Lebedev, Lempitsky, 2016.

    These are the columns of the convolution as a matrix product; in a grouped convolution each group has its own.
    """

    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        kernels = [one for one in weights if is_convolution(one.layer) and len(one.shape) > 2]
        if not kernels:
            raise BadNetwork(
                "objectives/group_lasso_positions: where selects no kernel of a convolution. Widen it, or "
                "use group_lasso."
            )

        def extra() -> Tensor:
            return torch.stack([column_norms(one.layer, getattr(one.layer, one.name)).sum() for one in kernels]).sum()

        return extra


def column_norms(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return the L2 norm of each column over the filters of its group, (groups, inputs / groups, ...); no gradient at zero."""
    groups: int = layer.groups  # type: ignore[assignment]
    squares = weight.float().square().unflatten(0, (groups, -1)).sum(1)
    return torch.where(squares > TINY, squares.clamp(min=TINY).sqrt(), 0.0)
