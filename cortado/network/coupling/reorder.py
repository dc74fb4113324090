"""Reorder: put the units of groups in another order, everywhere they are, without changing any output."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue
from cortado.network.coupling.answers import difference, flat_outputs
from cortado.network.coupling.cut import TOLERANCE, Rows, Undo, narrow_rows, outputs_in
from cortado.network.coupling.groups import Group, Groups

Orders = Mapping[Group, Tensor]
"""For each group, the indices of its units in their new order."""


def reorder(network: nn.Module, groups: Groups, orders: Orders) -> dict[str, Tensor]:
    """Put the units of some groups in another order, in place, and compare the outputs on the example.

    Return, for each layer whose outputs changes places, their indices in the new order. Raises BadValue for a group whose
    units cannot change places, and for anything but a permutation; BadNetwork, after undoing it, where outputs change.
    """
    inputs = groups.walked.captured.program.example_inputs
    rows = reordered_rows(groups, orders)
    wanted, undo = flat_outputs(network, inputs), Undo(network)
    narrow_rows(groups, rows, undo)
    far = difference(flat_outputs(network, inputs), wanted)
    if not far <= TOLERANCE:
        undo.all()
        names = ", ".join(group.name for group in orders)
        raise BadNetwork(
            f"groups: another order of {names} changes the outputs (relative difference {far:.2g}). Please report a bug."
        )
    return outputs_in(network, groups, rows)


def reordered_rows(groups: Groups, orders: Orders) -> Rows:
    """Return, for each axis with units that change places, the index of the entry that comes to each place."""
    nodes = {names: node for node, names in groups.walked.captured.tensors.items()}
    found: Rows = {}
    for group, order in orders.items():
        new = torch.as_tensor(order).cpu().numpy()
        if group.ordered or not np.array_equal(np.sort(new), np.arange(group.count)):
            reason = group.ordered or "the order is no permutation"
            raise BadValue(f"groups: the {group.count} units of {group.name} cannot change places: {reason}.")
        # A tensor that layers share may have several placeholders.
        for slot in {(slot.names, slot.axis): slot for slot in group.slots}.values():
            place, units = (nodes[slot.names], slot.axis), slot.units.numpy()
            before = found.get(place, np.arange(len(units)))
            found[place] = before[moved_entries(units, new)]
    return found


def moved_entries(units: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the index of the entry that comes to each place: a unit's entries go, in their order, to its new places."""
    entries = {unit: np.flatnonzero(units == unit) for unit in np.unique(units[units >= 0]).tolist()}
    found = np.arange(len(units))
    for place, unit in enumerate(order.tolist()):
        found[entries[place]] = entries[unit]
    return found
