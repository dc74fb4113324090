"""Reconstruction: a channel is worth what the layers that read it lose when the other channels make up for it."""

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.importance.importance import Importance
from cortado.network.coupling.groups import Group
from cortado.network.statistics.elimination import Elimination, EliminationProblem, problems
from cortado.network.view import View, Weight
from cortado.task.task import Task


class Reconstruction(Importance):
    """Least error of the outputs of the layers that read the channels, by least squares.  He, Zhang, Sun, 2017.

    Channels go one by one, the one first whose loss the others make up for best; a channel is worth the share of the
    outputs' variance that it costs at its turn, and no less than those before it. All in closed form from the
    covariance of what the layers read: the paper's LASSO (`lasso`) chooses by one factor a channel, this by all weights.
    It is what prune/channels with `reconstruct` then does. Layers with more than 2,304 inputs x taps have one factor
    a channel here too.
    """

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        raise BadNetwork(
            "scores/reconstruction: it ranks whole channels. Use it with prune/channels, or rank by activation."
        )

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        found = []
        with view.progress.bar("reconstruction", len(groups)) as bar:
            for group, readers in zip(groups, problems(view, groups, task), strict=True):
                found.append(worths(readers, group.count))
                bar.advance()
        return found


def worths(readers: list[EliminationProblem], count: int) -> Tensor:
    """What each unit costs at its turn, (count,), rising in the order in which they go."""
    states = [Elimination(reader) for reader in readers]
    alive = torch.ones(count, dtype=torch.bool)
    worth, last = torch.zeros(count), 0.0
    for _ in range(count):
        costs = torch.stack([state.costs(alive) for state in states]).sum(0)
        unit = int(torch.where(alive, costs, torch.inf).argmin())
        # A little more than the one before: the order stays when costs fall or are zero.
        last = max(float(costs[unit]), last * (1 + 1e-6) + 1e-20)
        worth[unit] = last
        alive[unit] = False
        for state in states:
            state.remove(unit)
    return worth
