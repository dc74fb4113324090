"""Reconstruction: rank channels by the output error that remains after the other channels compensate."""

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.importance.importance import Importance
from cortado.network.coupling.groups import Group
from cortado.network.statistics.elimination import Elimination, EliminationProblem, problems
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


class Reconstruction(Importance):
    """Least-squares reconstruction error of the consumers' outputs.  He, Zhang, Sun, 2017.

    Channels are removed greedily, the one with the smallest error after compensation first. Its importance is the
    share of output variance lost at that step, and never less than that of the channels removed before it. Everything
    is closed form, from the covariance of the consumers' inputs; the paper's LASSO (`lasso`) selects with one factor
    per channel instead of all weights. This matches what prune/channels does with `reconstruct`. Layers with more than
    2,304 inputs x taps use one factor per channel here too.
    """

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        raise BadNetwork(
            "importance/reconstruction: it ranks whole channels. Use it with prune/channels, or rank by activation."
        )

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        found = []
        with view.progress.bar("reconstruction", len(groups)) as bar:
            for group, readers in zip(groups, problems(view, groups, task), strict=True):
                found.append(worths(readers, group.count))
                bar.advance()
        return found


def worths(readers: list[EliminationProblem], count: int) -> Tensor:
    """Return the error at which each unit is removed, (count,), rising in the order of removal."""
    states = [Elimination(reader) for reader in readers]
    alive = torch.ones(count, dtype=torch.bool)
    worth, last = torch.zeros(count), 0.0
    for _ in range(count):
        costs = torch.stack([state.costs(alive) for state in states]).sum(0)
        unit = int(torch.where(alive, costs, torch.inf).argmin())
        # Strictly more than the previous one, so that the order survives costs that fall or are zero.
        last = max(float(costs[unit]), last * (1 + 1e-6) + 1e-20)
        worth[unit] = last
        alive[unit] = False
        for state in states:
            state.remove(unit)
    return worth
