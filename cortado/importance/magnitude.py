"""Magnitude: the absolute value of a weight."""

import torch
from torch import Tensor

from cortado.importance.importance import Importance, producing
from cortado.network.coupling.groups import Group
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


class Magnitude(Importance):
    """|w|.  Han, Pool, Tran, Dally, 2015."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        return [weight.dense().abs() for weight in weights]

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        """Return the L1 norm of what produces each unit (Li et al., 2017), over its group's mean."""
        weights = {weight.path: weight for weight in view.all_weights}
        found = [unit_magnitudes(group, weights) for group in groups]
        return [units / units.mean().clamp(min=1e-30) for units in found]


def unit_magnitudes(group: Group, weights: dict[str, Weight]) -> Tensor:
    """Sum |w| over each unit of a group, without a temporary tensor of any weight's size."""
    total = torch.zeros(group.count)
    for slot in producing(group):
        if slot.names[0] in weights:
            value = weights[slot.names[0]].dense()
            others = [axis for axis in range(value.dim()) if axis != slot.axis]
            rows = torch.linalg.vector_norm(value, 1, others) if others else value.abs()
            mine = slot.units >= 0
            total.index_add_(0, slot.units[mine], rows.float().cpu()[mine])
    return total
