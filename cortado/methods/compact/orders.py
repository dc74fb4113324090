"""Orders: new orders of channels, given to all layers around a convolution where that is possible, else kept as an index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import CortadoError
from cortado.layers.kinds import is_channel_norm
from cortado.methods.factorize.targets import Target
from cortado.network.coupling.groups import Group
from cortado.network.view import View

OUTPUTS, INPUTS = 0, 1
"""The axes of a kernel."""


@dataclass(frozen=True)
class Wanted:
    """The order in which a convolution shall have its outputs, and its inputs: indices of the channels; None for any."""

    outputs: Tensor | None
    inputs: Tensor | None = None

    def along(self, axis: int) -> Tensor | None:
        return self.inputs if axis else self.outputs


Indices = dict[str, tuple[Tensor, Tensor]]
"""For each layer, what its block has to pick from the outputs that it makes, and from the inputs that it reads."""


def give_orders(view: View, targets: Sequence[Target], wanted: Mapping[str, Wanted], where: str) -> Indices:
    """Reorder channels in the whole network for as many wanted orders as possible, and return what is left to be picked.

    The channels between two layers have one order, that of the first layer which wants one. Where a layer outside `where`
    reads or makes them too, they stay as they are.
    """
    around = {(one.path, axis): free_group(view, one, axis, where) for one in targets for axis in (OUTPUTS, INPUTS)}
    orders: dict[Group, Tensor] = {}
    for (path, axis), group in around.items():
        order = wanted[path].along(axis)
        if group is not None and order is not None:
            orders.setdefault(group, order)
    if orders:
        view.reorder(orders)
    found: Indices = {}
    for target in targets:
        # In the block, and in the network as it is now: which channel of before is at each place.
        inside = [in_full(wanted[target.path].along(axis), target.shape[axis]) for axis in (OUTPUTS, INPUTS)]
        outside = [orders.get(group) if (group := around[target.path, axis]) else None for axis in (OUTPUTS, INPUTS)]
        here = [in_full(order, target.shape[axis]) for axis, order in enumerate(outside)]
        found[target.path] = inside[OUTPUTS].argsort()[here[OUTPUTS]], here[INPUTS].argsort()[inside[INPUTS]]
    return found


def in_full(order: Tensor | None, count: int) -> Tensor:
    """Return an order, or the one that changes nothing."""
    return torch.arange(count) if order is None else order


def free_group(view: View, target: Target, axis: int, where: str) -> Group | None:
    """Return the group of a convolution's outputs or inputs if its channels may change places, in chosen layers alone."""
    chosen = {weight.layer_path for weight in view.weights(where)}
    for group in channel_groups(view):
        mine = [slot for slot in group.slots if target.weight.path in slot.names]
        whole = len(mine) == 1 and mine[0].axis == axis and torch.equal(mine[0].units, torch.arange(target.shape[axis]))
        if whole and not group.ordered:
            layers = {slot.layer for slot in group.slots} - chosen
            return group if all(is_channel_norm(view.network.get_submodule(path)) for path in layers) else None
    return None


def channel_groups(view: View) -> list[Group]:
    """Return the groups of channels of a network; none for one that cannot be traced."""
    try:
        return view.groups.all
    except CortadoError:
        return []
