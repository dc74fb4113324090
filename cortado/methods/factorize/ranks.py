"""Ranks: choose each layer's rank so that the network costs the requested share."""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.factorize.targets import Target
from cortado.parts.forms.low_rank import LowRank


@dataclass(frozen=True)
class Cut:
    """The possible factorizations of a layer: one form for each rank 1 .. len(energies).

    `energies[r - 1]` is what rank r adds to the energy kept, in any unit. `sketch(rank)` has the shapes of the form
    without values.
    """

    target: Target
    energies: Tensor
    sketch: Callable[[int], LowRank]

    def cost(self, rank: int) -> int:
        return self.target.cost(self.sketch(rank))

    def largest(self, limit: float) -> int:
        """Return the largest rank that costs at most `limit`, or 0.  Cost grows with rank."""
        low, high = 0, len(self.energies)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.cost(middle) <= limit else (low, middle - 1)
        return low

    @property
    def least_cost(self) -> int:
        """Return the multiply-adds at the smallest rank, or those of the original layer if no factors are cheaper."""
        return min(self.cost(1), self.target.dense_cost)


def least_share(cuts: Sequence[Cut]) -> tuple[float, str]:
    """Return the smallest share of all multiply-adds that energy_ranks can reach, and of what; 0 if no factors are cheaper."""
    least, dense = sum(cut.least_cost for cut in cuts), sum(cut.target.dense_cost for cut in cuts)
    return (least / dense if least < dense else 0.0), "these layers"


def least_of_each(cuts: Sequence[Cut]) -> tuple[float, str]:
    """Return the smallest share that equal_ranks can reach in every layer with cheaper factors, and the layer that sets it."""
    pay = [cut for cut in cuts if cut.least_cost < cut.target.dense_cost]
    shares = [(cut.least_cost / cut.target.dense_cost, f"layer {cut.target.path}") for cut in pay]
    return max(shares, default=(0.0, ""))


def equal_ranks(cuts: Sequence[Cut], keep: float) -> list[int]:
    """Return for each layer the largest rank within `keep` of its own multiply-adds; 0 leaves it unchanged."""
    return [cut.largest(min(keep * cut.target.dense_cost, cut.target.dense_cost - 1)) for cut in cuts]


def energy_ranks(cuts: Sequence[Cut], keep: float) -> list[int]:
    """Return ranks that maximise the product of kept energies within `keep` of all multiply-adds; 0 leaves a layer unchanged.

    Greedy, after Zhang et al., 2015: repeatedly lower the rank of the layer that loses the least share of its energy
    per multiply-add saved. The size of a step is the one that pays most, because the first factors may cost more than
    the layer.
    """
    time_limit = keep * sum(cut.target.dense_cost for cut in cuts)
    steps_down = [RankSteps(cut) for cut in cuts]
    total = sum(rank_steps.cost for rank_steps in steps_down)
    queue = [(*rank_steps.step(), at) for at, rank_steps in enumerate(steps_down)]
    heapq.heapify(queue)
    while total > time_limit and queue and queue[0][0] < math.inf:
        _, rank, at = heapq.heappop(queue)
        total -= steps_down[at].cost
        steps_down[at].down_to(rank)
        total += steps_down[at].cost
        if total <= time_limit:
            steps_down[at].fill(time_limit - total)
        heapq.heappush(queue, (*steps_down[at].step(), at))
    return [rank_steps.rank for rank_steps in steps_down]


class RankSteps:
    """A layer's descent through the ranks: its rank (0: unfactored), its cost and the log of the energy kept."""

    def __init__(self, cut: Cut) -> None:
        self.top = cut.largest(cut.target.dense_cost - 1)
        kept = cut.energies.double().cpu().cumsum(0)
        self.logs = (kept / kept[-1].clamp(min=1e-300)).clamp(min=1e-300).log()[: self.top]
        self.costs = torch.tensor([cut.cost(rank) for rank in range(1, self.top + 1)], dtype=torch.float64)
        self.rank, self.cost, self.log = 0, cut.target.dense_cost, 0.0

    def step(self) -> tuple[float, int]:
        """Return the lowest saving of a step down (energy per multiply-add) and its rank; infinite at the bottom."""
        below = (self.rank or self.top + 1) - 1
        if below < 1:
            return math.inf, 0
        gains_each = (self.log - self.logs[:below]) / (self.cost - self.costs[:below])
        # Among equal savings, take the smallest step.
        best = below - 1 - int(gains_each.flip(0).argmin())
        return float(gains_each[best]), best + 1

    def down_to(self, rank: int) -> None:
        self.rank, self.cost, self.log = rank, int(self.costs[rank - 1]), float(self.logs[rank - 1])

    def fill(self, left: float) -> None:
        """Raise the rank again by the excess saved."""
        within = int((self.costs <= self.cost + left).sum())
        if within > self.rank:
            self.down_to(within)


def fixed_ranks(cuts: Sequence[Cut], rank: int) -> list[int]:
    """Return the same rank for all layers; 0 if it does not exist or does not cost less than the layer."""
    return [rank if rank <= cut.largest(cut.target.dense_cost - 1) else 0 for cut in cuts]


def squares(matrix: Tensor) -> Tensor:
    """Return the squared singular values of a matrix in falling order: the energies of its ranks."""
    return torch.linalg.svdvals(matrix.double()) ** 2
