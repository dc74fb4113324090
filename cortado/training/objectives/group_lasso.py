"""group_lasso: the norms of whole channels, which lets them be cut."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.layers.kinds import kind_of
from cortado.network.coupling.groups import Group
from cortado.network.view import View, Weight
from cortado.task.task import Task
from cortado.training.objectives.penalty import Extra, Penalty

TINY = 1e-12
"""Below this square a channel has no gradient: the slope of a norm at zero is not defined."""


class GroupLasso(Penalty):
    """The sum over channels of the L2 norm of all that makes them.  Wen et al., 2016; Lebedev, Lempitsky, 2016.

    A channel is a unit of `view.groups`: its filters in every layer that makes it - several where a sum ties layers -
    with their biases and with gain and bias of the norms that it passes. Where all these are zero, so is the channel, and
    prune/channels cuts it without a change. What cannot be cut, as the outputs of the last layer, is left free.
    In a network that cannot be traced the filters of each weight count, those of the last layer too.
    `where` takes a group when it takes one of the weights that make it.
    """

    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        units = list(traced(view, weights))
        if not units:
            raise BadNetwork(
                "penalties/group_lasso: no channels that could be cut are made by the weights taken. Widen where."
            )

        def extra(network: nn.Module) -> Tensor:
            return torch.stack([unit_norms(parts).sum() for parts in units]).sum()

        return extra


class GroupPart:
    """One axis of a weight on which units of a group lie."""

    def __init__(self, weight: Weight, axis: int, units: Tensor, count: int) -> None:
        """`units`: the unit of each entry of the axis, -1 for those of other groups; `count`: how many there are."""
        self.weight, self.axis, self.units, self.count = weight, axis, units, count

    def squares(self) -> Tensor:
        """The sum of squares of each unit's entries, (count,)."""
        values: Tensor = getattr(self.weight.layer, self.weight.name)
        rows = values.float().square().movedim(self.axis, 0).reshape(len(self.units), -1).sum(1)
        mine = (self.units >= 0).to(rows.device)
        return rows.new_zeros(self.count).index_add(0, self.units.to(rows.device)[mine], rows[mine])


def unit_norms(parts: list[GroupPart]) -> Tensor:
    """The L2 norm of each unit over all parts, (count,), with a gradient of zero at zero."""
    squares = torch.stack([part.squares() for part in parts]).sum(0)
    return torch.where(squares > TINY, squares.clamp(min=TINY).sqrt(), 0.0)


def traced(view: View, weights: list[Weight]) -> Iterator[list[GroupPart]]:
    """The parts of each group; of each weight alone where the network cannot be traced."""
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
    """All that makes the units of a group and that rides along; buffers are no weights and fall out."""
    slots = [slot for slot in group.slots if slot.role != "consumer" and slot.names[0] in by_path]
    return [GroupPart(by_path[slot.names[0]], slot.axis, slot.units, group.count) for slot in slots]


def output_axis(weight: Weight) -> int | None:
    """The axis of a matrix or kernel on which its outputs lie; None for anything else."""
    kind = kind_of(weight.layer)
    axes = None if kind is None else kind.axes(weight.layer).get(weight.name)
    return axes.output if axes is not None and len(weight.shape) > 1 and weight.shape.numel() else None
