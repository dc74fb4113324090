"""Lasso: rank channels by the penalty at which their factor becomes zero."""

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.importance.importance import Importance
from cortado.network.coupling.groups import Group
from cortado.network.statistics.elimination import EliminationProblem, problems
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task

STEPS, SWEEPS = 100, 100
SMALLEST = 1e-5
"""Where the path begins, as a share of the penalty at which all factors are zero."""


class Lasso(Importance):
    """The LASSO of He, Zhang, Sun, 2017: one factor per channel, least squares on the consumers' outputs plus L1.

    The penalty grows from almost zero, warm-started at each step; a factor that reaches zero stays there. A channel's
    importance is the largest penalty, as a share of the final one, at which its factor was nonzero. Factors are scaled
    to weights of norm 1, as in the paper, and each consumer's outputs by their variance. Duplicate channels are not
    dropped early; `reconstruction` does that.
    """

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        raise BadNetwork(
            "importance/lasso: it ranks whole channels. Use it with prune/channels, or rank by activation."
        )

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        found = []
        for group, readers in zip(groups, problems(view, groups, task), strict=True):
            products, sizes = unit_products(readers, group.count)
            found.append(path(products, sizes))
        return found


def unit_products(readers: list[EliminationProblem], count: int) -> tuple[Tensor, Tensor]:
    """Return the Gram matrix of the units' contributions to all outputs (count, count), and the norm of each unit's weights."""
    products = torch.zeros(count, count, dtype=torch.float64)
    squares = torch.zeros(count, dtype=torch.float64)
    for reader in readers:
        scale, mine = 1 / max(reader.power(), 1e-30), reader.units >= 0
        products += scale * reader.by_unit(count)
        squares.index_add_(0, reader.units[mine], scale * reader.squares[mine])
    return products, squares.sqrt()


def path(products: Tensor, sizes: Tensor) -> Tensor:
    """Return the importance of each unit, (units,), by coordinate descent under a growing penalty."""
    sizes = sizes.clamp(min=1e-15)
    gram = products / sizes[:, None] / sizes
    wanted = gram @ sizes
    most = float(wanted.abs().max())
    worth = torch.zeros(len(sizes))
    if not most:
        return worth
    factors, slopes = sizes.clone(), wanted.clone()
    for step in range(STEPS):
        share = SMALLEST ** (1 - step / (STEPS - 1))
        descend(gram, wanted, share * most, factors, slopes)
        # Units that vanish at the same step are ordered by the size of their factor.
        worth = torch.where(
            factors != 0, share * (1 + 1e-3 * factors.abs() / factors.abs().max().clamp(min=1e-30)), worth
        )
    return worth.float()


def descend(gram: Tensor, wanted: Tensor, penalty: float, factors: Tensor, slopes: Tensor) -> None:
    """Minimise |sum of units x factors - outputs|^2 / 2 + penalty |factors| in place; `slopes` are gram @ factors."""
    # Coordinate descent reads single numbers, which is ten times faster in NumPy. The arrays share the tensors' memory.
    rows, goals, values, now = gram.numpy(), wanted.numpy(), factors.numpy(), slopes.numpy()
    diagonal = rows.diagonal()
    near = 1e-6 * float(abs(goals).max()) ** 0.5
    for _ in range(SWEEPS):
        moved = 0.0
        for unit in values.nonzero()[0].tolist():
            size, before = float(diagonal[unit]), float(values[unit])
            free = float(goals[unit]) - float(now[unit]) + size * before
            best = max(abs(free) - penalty, 0.0) / size if size > 0 else 0.0
            change = (best if free > 0 else -best) - before
            if change:
                values[unit] += change
                now += change * rows[unit]
                moved = max(moved, abs(change) * max(size, 0.0) ** 0.5)
        if moved < near:
            return
