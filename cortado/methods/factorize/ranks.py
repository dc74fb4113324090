"""Ranks: how much of each layer stays, so that the whole costs the share that was asked for."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.factorize.targets import Target
from cortado.parts.forms.low_rank import LowRank


@dataclass(frozen=True)
class Cut:
    """What a method can make of a layer: a form for each rank 1 .. len(energies).

    `energies[r - 1]` is what rank r adds to what is kept, as a share or in any unit. `sketch(rank)` has the shapes of
    the form without values.
    """

    target: Target
    energies: Tensor
    sketch: Callable[[int], LowRank]

    def cost(self, rank: int) -> int:
        return self.target.cost(self.sketch(rank))

    def largest(self, limit: float) -> int:
        """The largest rank that costs at most `limit`; 0 when there is none.  Cost grows with rank."""
        low, high = 0, len(self.energies)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.cost(middle) <= limit else (low, middle - 1)
        return low

    @property
    def least_cost(self) -> int:
        """Multiply-adds at the smallest rank; those of the layer as it is where no factors pay."""
        return min(self.cost(1), self.target.dense_cost)


def least_share(cuts: list[Cut]) -> tuple[float, str]:
    """The smallest share of all multiply-adds that energy_ranks can leave, and whose it is; 0 where no factors pay."""
    least, dense = sum(cut.least_cost for cut in cuts), sum(cut.target.dense_cost for cut in cuts)
    return (least / dense if least < dense else 0.0), "these layers"


def least_of_each(cuts: list[Cut]) -> tuple[float, str]:
    """The smallest share that equal_ranks can leave in each layer whose factors pay, and the layer that sets it."""
    pay = [cut for cut in cuts if cut.least_cost < cut.target.dense_cost]
    shares = [(cut.least_cost / cut.target.dense_cost, f"layer {cut.target.path}") for cut in pay]
    return max(shares, default=(0.0, ""))


def equal_ranks(cuts: list[Cut], keep: float) -> list[int]:
    """For each layer the largest rank within `keep` of its own multiply-adds; 0: leave it as it is."""
    return [cut.largest(min(keep * cut.target.dense_cost, cut.target.dense_cost - 1)) for cut in cuts]


def energy_ranks(cuts: list[Cut], keep: float) -> list[int]:
    """Ranks whose product of kept energies is large, within `keep` of the multiply-adds of all layers together.

    After Zhang et al., 2015: again and again one layer gives up ranks, the one that loses the least share of its energy
    for the multiply-adds saved. How many at a time is what pays most, as the first factors may cost more than the
    layer. 0 is a layer that stays as it is.
    """
    time_limit = keep * sum(cut.target.dense_cost for cut in cuts)
    ladders = [RankSteps(cut) for cut in cuts]
    total = sum(rank_steps.cost for rank_steps in ladders)
    queue = [(*rank_steps.step(), at) for at, rank_steps in enumerate(ladders)]
    heapq.heapify(queue)
    while total > time_limit and queue and queue[0][0] < math.inf:
        _, rank, at = heapq.heappop(queue)
        total -= ladders[at].cost
        ladders[at].down_to(rank)
        total += ladders[at].cost
        if total <= time_limit:
            ladders[at].fill(time_limit - total)
        heapq.heappush(queue, (*ladders[at].step(), at))
    return [rank_steps.rank for rank_steps in ladders]


class RankSteps:
    """A layer on its way down: its rank (0: whole), what it costs and the logarithm of the energy it keeps."""

    def __init__(self, cut: Cut) -> None:
        self.top = cut.largest(cut.target.dense_cost - 1)
        kept = cut.energies.double().cpu().cumsum(0)
        self.logs = (kept / kept[-1].clamp(min=1e-300)).clamp(min=1e-300).log()[: self.top]
        self.costs = torch.tensor([cut.cost(rank) for rank in range(1, self.top + 1)], dtype=torch.float64)
        self.rank, self.cost, self.log = 0, cut.target.dense_cost, 0.0

    def step(self) -> tuple[float, int]:
        """The least price - energy for each multiply-add - of going down, and to which rank; infinite at the bottom."""
        below = (self.rank or self.top + 1) - 1
        if below < 1:
            return math.inf, 0
        gains_each = (self.log - self.logs[:below]) / (self.cost - self.costs[:below])
        # Of equal prices the smallest step.
        best = below - 1 - int(gains_each.flip(0).argmin())
        return float(gains_each[best]), best + 1

    def down_to(self, rank: int) -> None:
        self.rank, self.cost, self.log = rank, int(self.costs[rank - 1]), float(self.logs[rank - 1])

    def fill(self, left: float) -> None:
        """Go up again by what was saved too much."""
        within = int((self.costs <= self.cost + left).sum())
        if within > self.rank:
            self.down_to(within)


def fixed_ranks(cuts: list[Cut], rank: int) -> list[int]:
    """The same rank for all; 0 where there is no such rank or its factors would cost as much as the layer."""
    return [rank if rank <= cut.largest(cut.target.dense_cost - 1) else 0 for cut in cuts]


def squares(matrix: Tensor) -> Tensor:
    """The squared singular values of a matrix, falling: the energies of its ranks."""
    return torch.linalg.svdvals(matrix.double()) ** 2
