"""Score: what each entry of a weight is worth.  One file a score; its name in a recipe is the file's."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

import cortado.importance
from cortado.lookup import lookup
from cortado.network.coupling.groups import Group, Slot
from cortado.network.view import View, Weight
from cortado.task.task import Task


class Importance(ABC):
    """Ranks the entries of weights: the higher, the more an entry is worth.

    >>> small, report = cortado.compress(net, task, [PruneWeights(keep=0.5, by=Random())])

    Scores of different weights of one call are comparable, so that one threshold may serve all layers.
    """

    @abstractmethod
    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        """For each weight a tensor of its shape, 0 or more, float32."""

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        """For each group what each of its units is worth, (units,): the sum over all that produces the unit.

        A score that knows more of units than of single weights says so itself.
        """
        weights = {weight.path: weight for weight in view.all_weights}
        paths = list(dict.fromkeys(slot.names[0] for group in groups for slot in producing(group)))
        chosen = [weights[path] for path in paths if path in weights]
        found = dict(zip((w.path for w in chosen), self.of(chosen, view, task), strict=True))
        return [self.summed(group, found) for group in groups]

    def summed(self, group: Group, found: dict[str, Tensor]) -> Tensor:
        """The sums of single scores over the units of one group."""
        total = torch.zeros(group.count)
        for slot in producing(group):
            if slot.names[0] in found:
                rows = found[slot.names[0]].detach().float().cpu().movedim(slot.axis, 0)
                rows = rows.reshape(len(rows), -1).sum(1)
                mine = slot.units >= 0
                total.index_add_(0, slot.units[mine], rows[mine])
        return total


def producing(group: Group) -> list[Slot]:
    """The slots that make a group's units; all matrices where none is known to."""
    return group.of_role("producer") or list(group.slots)


def score(by: str | Importance | type[Importance]) -> Importance:
    """Return the score that a method's `by` gives: by name, as an instance, or as a class that needs no arguments.

    Class Taylor of scores/taylor.py is "taylor", a user's own is "my_pkg.my_file:MyScore". Raises BadRecipe for a name that
    is not known, with near ones.
    """
    if isinstance(by, Importance):
        return by
    found: Importance = by() if isinstance(by, type) else lookup(cortado.importance, Importance, by)
    return found
