"""Importance: rank the entries of weights.  One file per measure; recipes use the file's name."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

import cortado.importance
from cortado.lookup import lookup
from cortado.network.coupling.groups import Group, Slot
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


class Importance(ABC):
    """Ranks the entries of weights: higher is more important.

    >>> small, report = cortado.compress(net, task, [PruneWeights(keep=0.5, by=Random())])

    Values from one call are comparable across weights, so one threshold can serve all layers.
    """

    @abstractmethod
    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        """Return one float32 tensor per weight, of its shape, with values >= 0."""

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        """Return the importance of each unit of each group, (units,).

        The default sums over everything that produces the unit; subclasses with a better measure for units override it.
        """
        weights = {weight.path: weight for weight in view.all_weights}
        paths = list(dict.fromkeys(slot.names[0] for group in groups for slot in producing(group)))
        chosen = [weights[path] for path in paths if path in weights]
        found = dict(zip((w.path for w in chosen), self.of(chosen, view, task), strict=True))
        return [self.summed(group, found) for group in groups]

    def summed(self, group: Group, found: dict[str, Tensor]) -> Tensor:
        """Sum the importance of single weights over each unit of one group."""
        total = torch.zeros(group.count)
        for slot in producing(group):
            if slot.names[0] in found:
                rows = found[slot.names[0]].detach().float().cpu().movedim(slot.axis, 0)
                rows = rows.reshape(len(rows), -1).sum(1)
                mine = slot.units >= 0
                total.index_add_(0, slot.units[mine], rows[mine])
        return total


def producing(group: Group) -> list[Slot]:
    """Return the slots that produce a group's units, or all its matrices if none is known to."""
    return group.of_role("producer") or list(group.slots)


def score(by: str | Importance | type[Importance]) -> Importance:
    """Return the importance measure for a method's `by`: a name, an instance, or a class without required arguments.

    Class Taylor in importance/taylor.py is "taylor"; your own is "my_pkg.my_file:MyImportance". Raises BadRecipe for an
    unknown name and suggests close matches.
    """
    if isinstance(by, Importance):
        return by
    found: Importance = by() if isinstance(by, type) else lookup(cortado.importance, Importance, by)
    return found
