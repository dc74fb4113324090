"""group_lasso: the norms of whole channels, which prepares them for pruning."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.layers.kinds import kind_of
from cortado.network.coupling.groups import Group
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task
from cortado.training.objectives.penalty import Extra, Penalty

TINY = 1e-12
"""A channel below this squared norm gets no gradient: the norm is not differentiable at zero."""


@dataclass(frozen=True)
class GroupLasso(Penalty):
    """The sum over channels of the L2 norm of everything that produces them.  Wen et al., 2016; Lebedev, Lempitsky, 2016.

    A channel is a unit of `view.groups`: its filters in every layer that produces it (several, if a sum ties layers),
    their biases, and gain and bias of its norms. If all of these are zero, prune/channels removes the channel without
    any change in outputs. Channels that cannot be cut, such as network outputs, are not penalised. In a network that
    cannot be traced, each weight's filters are penalised, including the last layer's. `where` selects a group if it
    selects one of its producing weights.
    """

    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        units = list(traced(view, weights))
        if not units:
            raise BadNetwork(
                "objectives/group_lasso: the selected weights produce no channels that can be cut. Widen where."
            )

        def extra() -> Tensor:
            return torch.stack([unit_norms(parts).sum() for parts in units]).sum()

        return extra


class GroupPart:
    """One axis of a weight, with the units of a group along it."""

    def __init__(self, weight: Weight, axis: int, units: Tensor, count: int) -> None:
        """`units`: the unit of each entry of the axis, -1 for other groups; `count`: the number of units."""
        self.weight, self.axis, self.units, self.count = weight, axis, units, count

    def squares(self) -> Tensor:
        """Return the sum of squares of each unit's entries, (count,)."""
        values: Tensor = getattr(self.weight.layer, self.weight.name)
        rows = values.float().square().movedim(self.axis, 0).reshape(len(self.units), -1).sum(1)
        mine = (self.units >= 0).to(rows.device)
        return rows.new_zeros(self.count).index_add(0, self.units.to(rows.device)[mine], rows[mine])


def unit_norms(parts: list[GroupPart]) -> Tensor:
    """Return the L2 norm of each unit over all parts, (count,), with a zero gradient at zero."""
    squares = torch.stack([part.squares() for part in parts]).sum(0)
    return torch.where(squares > TINY, squares.clamp(min=TINY).sqrt(), 0.0)


def traced(view: View, weights: list[Weight]) -> Iterator[list[GroupPart]]:
    """Yield the parts of each group, or of each weight separately if the network cannot be traced."""
    try:
        groups = view.groups.free
    except BadNetwork:
        for weight in weights:
            axis = output_axis(weight)
            if axis is not None:
                yield [GroupPart(weight, axis, torch.arange(weight.shape[axis]), weight.shape[axis])]
        return
    chosen = {weight.path for weight in weights}
    by_path = {weight.path: weight for weight in view.all_weights}
    for group in groups:
        if any(slot.names[0] in chosen for slot in group.of_role("producer")):
            yield group_parts(group, by_path)


def group_parts(group: Group, by_path: dict[str, Weight]) -> list[GroupPart]:
    """Return all weights that produce the units of a group or follow them; buffers are excluded."""
    slots = [slot for slot in group.slots if slot.role != "consumer" and slot.names[0] in by_path]
    return [GroupPart(by_path[slot.names[0]], slot.axis, slot.units, group.count) for slot in slots]


def output_axis(weight: Weight) -> int | None:
    """Return the output axis of a matrix or kernel; None for anything else."""
    kind = kind_of(weight.layer)
    axes = None if kind is None else kind.axes(weight.layer).get(weight.name)
    return axes.output if axes is not None and len(weight.shape) > 1 and weight.shape.numel() else None
