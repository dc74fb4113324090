"""prune/units: remove dead units and sort the others by activity, without changing any output."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadNetwork, CannotFollow
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.network.coupling.groups import Group, Slot
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class PruneUnits(Method):
    """Remove dead units (all weights and the bias are zero, or all consumers ignore them) and sort the rest.

    A dead unit outputs zero or is unused, so the network computes the same. Sorting by the number of nonzero weights is
    free too, and gathers the empty parts of a weight in one place for the coder.
    """

    needs = (
        Need(
            "units that are dead or stand behind less active ones",
            lambda method, view, task: bool(method.dead(view) or method.orders(view)),
            "use prune/channels",
        ),
    )
    leaves = (Leaves.NARROWER,)

    sort: bool = knob(True, help="put units with many nonzero weights first")

    def apply(self, view: View, task: Task) -> None:
        self.sweep(view)

    def sweep(self, view: View) -> int:
        """Remove and sort; return the number of units removed.

        In a network that cannot be traced units stay: methods that only tidy up at their end work there too.
        """
        try:
            self.chosen(view)
        except BadNetwork:
            return 0
        removed = 0
        while keeps := self.dead(view):
            fell = sum(group.count - len(keep) for group, keep in keeps.items())
            try:
                view.cut(keeps)
            except CannotFollow:
                # Those that failed are frozen now.
                continue
            removed += fell
        if orders := self.orders(view):
            view.reorder(orders)
        return removed

    def chosen(self, view: View) -> list[Group]:
        """Return the groups whose layers `where` selects.  Raises BadNetwork for a network that cannot be traced."""
        groups = [group for group in view.groups.all if group.count > 1 and group.of_role("consumer")]
        if self.where == "*":
            return groups
        layers = {id(layer) for weight in view.weights(self.where) for layer, _ in weight.places}
        return [
            group
            for group in groups
            if all(id(view.network.get_submodule(slot.layer)) in layers for slot in group.slots if slot.role != "rider")
        ]

    def dead(self, view: View) -> dict[Group, Tensor]:
        """Return the units that stay of each group that has dead ones; one stays in any case: no layer runs without."""
        chosen = [group for group in self.chosen(view) if group.exact]
        free = {id(group) for group in view.groups.free} if chosen else set()
        keeps = {}
        for group in chosen:
            alive = living_units(view, group)
            if not bool(alive.any()):
                alive[0] = True
            if id(group) in free and not bool(alive.all()):
                keeps[group] = alive.nonzero().squeeze(1)
        return keeps

    def orders(self, view: View) -> dict[Group, Tensor]:
        """Return the busiest-first order of each group that is in another one and can change it."""
        chosen = [group for group in self.chosen(view) if self.sort and not group.ordered]
        found = {group: torch.sort(busyness(view, group), descending=True, stable=True).indices for group in chosen}
        return {g: order for g, order in found.items() if not torch.equal(order, torch.arange(g.count))}


def living_units(view: View, group: Group) -> Tensor:
    """Return whether each unit can matter, (units,)."""
    alive = torch.ones(group.count, dtype=torch.bool)
    if not group.lifted:
        alive &= nonzeros(view, group, [slot for slot in group.slots if slot.role != "consumer"]) > 0
    if not group.absorbed:
        alive &= nonzeros(view, group, group.of_role("consumer")) > 0
    return alive


def busyness(view: View, group: Group) -> Tensor:
    """Return how many nonzero weights feed and read each unit, (units,)."""
    return nonzeros(view, group, [slot for slot in group.slots if slot.role != "rider"])


def nonzeros(view: View, group: Group, slots: list[Slot]) -> Tensor:
    """Return the number of nonzero entries of the learned tensors among these that belong to each unit, (units,)."""
    found = torch.zeros(group.count, dtype=torch.int64)
    for slot in slots:
        layer, name = view.network.get_submodule(slot.layer), slot.names[0].rpartition(".")[2]
        if name in layer._buffers:
            continue
        entries = (getattr(layer, name).detach() != 0).movedim(slot.axis, 0)
        counts = entries.reshape(len(entries), -1).sum(1).cpu()
        mine = slot.units >= 0
        found.index_add_(0, slot.units[mine], counts[mine])
    return found
