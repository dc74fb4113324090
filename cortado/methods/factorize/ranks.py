"""Ranks: how much of each layer stays, so that the whole costs the share that was asked for."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.forms.low_rank import LowRank
from cortado.methods.factorize.targets import Target


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


def equal_ranks(cuts: list[Cut], keep: float) -> list[int]:
    """For each layer the largest rank within `keep` of its own multiply-adds; 0: leave it as it is."""
    return [cut.largest(min(keep * cut.target.dense_cost, cut.target.dense_cost - 1)) for cut in cuts]


def energy_ranks(cuts: list[Cut], keep: float) -> list[int]:
    """Ranks whose product of kept energies is large, within `keep` of the multiply-adds of all layers together.

    Zhang et al., 2015: again and again the layer gives up a rank that loses the least share of its energy for the
    multiply-adds saved. 0 is a layer that stays as it is, because it never came below its plain cost.
    """
    budget = keep * sum(cut.target.dense_cost for cut in cuts)
    tops = [cut.largest(cut.target.dense_cost - 1) for cut in cuts]
    ranks, kept = list(tops), [cut.energies.double().cumsum(0).tolist() for cut in cuts]
    costs = [cut.cost(top) if top else cut.target.dense_cost for cut, top in zip(cuts, tops, strict=True)]
    queue = [price(cuts[at], kept[at], ranks[at], costs[at], at) for at in range(len(cuts)) if ranks[at] > 1]
    heapq.heapify(queue)
    total = sum(costs)
    while total > budget and queue:
        _, at, cheaper = heapq.heappop(queue)
        total += cheaper - costs[at]
        ranks[at], costs[at] = ranks[at] - 1, cheaper
        if ranks[at] > 1:
            heapq.heappush(queue, price(cuts[at], kept[at], ranks[at], cheaper, at))
    return [untouched(cut, rank, top) for cut, rank, top in zip(cuts, ranks, tops, strict=True)]


def price(cut: Cut, kept: list[float], rank: int, cost: int, at: int) -> tuple[float, int, int]:
    """What the layer's last rank is worth for each multiply-add, the layer's number, and its cost without that rank."""
    cheaper = cut.cost(rank - 1)
    lost = math.log(max(kept[rank - 1], 1e-300)) - math.log(max(kept[rank - 2], 1e-300))
    return lost / max(1, cost - cheaper), at, cheaper


def untouched(cut: Cut, rank: int, top: int) -> int:
    """0 for a layer that gave up nothing but what makes factors cheaper than the layer itself."""
    return 0 if rank == top and top < len(cut.energies) else rank


def fixed_ranks(cuts: list[Cut], rank: int) -> list[int]:
    """The same rank for all; 0 where its factors would cost as much as the layer."""
    return [min(rank, cut.largest(cut.target.dense_cost - 1)) if rank <= len(cut.energies) else 0 for cut in cuts]


def squares(matrix: Tensor) -> Tensor:
    """The squared singular values of a matrix, falling: the energies of its ranks."""
    return torch.linalg.svdvals(matrix.double()) ** 2
