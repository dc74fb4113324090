"""Quota: how much a method may keep, and which units of each group that leaves."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.network.coupling.groups import Group

BLOCK = 8
"""Channels that vector instructions of every processor of today compute at once: the step where no runtime is named."""
LEAST = 0.25
"""Share of a group's channels that stays where groups compete."""
STEPS = 24
"""Halvings of the interval in which a share is searched."""

Worth = dict[Group, Tensor]
"""The importance of each unit of each group, float64."""
Kept = dict[Group, Tensor]
"""The units of each group that stay, in order."""


class UnitCost(Protocol):
    """What a network costs when only some units stay."""

    def after(self, keeps: Kept) -> float:
        """Return the cost when only these units stay."""

    def share(self, keeps: Kept) -> float:
        """Return the share of the cost that remains."""


@dataclass(frozen=True)
class Quota:
    """The share `keep` of channels or of a cost (`of`), for all groups alike or `across` them, and bounds for each group.

    Every group keeps at least the share `least`, but never more than `keep` asks of all. Counts are multiples of
    `multiple`; see `step`. `method` and `what` (channels, heads) are for messages.
    """

    method: str
    what: str
    of: str
    keep: float
    across: bool
    least: float
    multiple: int

    def allocate(self, worth: Worth, cost: UnitCost | None = None) -> Kept:
        """Return the units to keep: exactly the share of channels, to rounding; at most the share of a `cost`.

        Raises BadValue if a group would keep nothing, or the smallest cut costs more than the quota.
        """
        if cost is None and not self.across:
            self.check_some_stay(worth)
            return self.best(worth, [self.keep] * len(worth))
        if not self.across:
            return self.mildest(lambda share: self.best(worth, [share] * len(worth)), cost)
        if cost is not None:
            worth = per_cost(worth, cost)
        return self.mildest(lambda share: self.best(worth, shares_of(list(worth.values()), share)), cost)

    def check_some_stay(self, worth: Worth) -> None:
        """Raise BadValue if a group would keep nothing."""
        for group in worth:
            if round(self.keep * group.count) < 1:
                raise BadValue(
                    f"{self.method}: keep={self.keep:g} would leave no {self.what} of {group.name}, which has {group.count}. "
                    "Raise keep, or exclude it with where."
                )

    def mildest(self, cut_at: Callable[[float], Kept], cost: UnitCost | None) -> Kept:
        """Return the mildest cut within the quota.  Raises BadValue if even the hardest costs more than a cost allows."""
        hardest, share = cut_at(0.0), channel_share if cost is None else cost.share
        if cost is not None and share(hardest) > self.keep:
            raise BadValue(
                f"{self.method}: the smallest cut still keeps {share(hardest):.1%} of the {self.of.replace('_', '-')}, "
                f"more than keep={self.keep:g}. Lower least (now {self.least:g}) or multiple (now {self.multiple}), "
                "or widen where."
            )
        low, high = 0.0, 1.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if share(cut_at(middle)) <= self.keep else (low, middle)
        return cut_at(low)

    def best(self, worth: Worth, shares: list[float]) -> Kept:
        """Return the most important units of each group, as many as its share and the bounds allow."""
        found = {}
        for (group, units), share in zip(worth.items(), shares, strict=True):
            count = self.count(group.count, share)
            found[group] = torch.sort(units, descending=True, stable=True).indices[:count].sort().values
        return found

    def count(self, units: int, share: float) -> int:
        """Return how many of a group's units stay for a share of them."""
        step = self.step(units)
        floor = min(self.least, self.keep) if self.of == "channels" else self.least
        fewest = max(1, math.ceil(floor * units / step - 1e-9))
        return min(units, max(fewest, round(max(share, floor) * units / step)) * step)

    def step(self, units: int) -> int:
        """Return the step of a group's count: `multiple`, halved while the group has no more units than that.

        Below a block of 8, where no kernel gains from rounding, the step is 1.
        """
        step = self.multiple
        while step > 1 and units <= step:
            step //= 2
        return step if step == self.multiple or step >= BLOCK else 1


def channel_share(keeps: Kept) -> float:
    """Return the share of the groups' channels, less half a channel because counts are rounded."""
    return (sum(len(keep) for keep in keeps.values()) - 0.5) / sum(group.count for group in keeps)


def per_cost(worth: Worth, cost: UnitCost) -> Worth:
    """Return the importance of each unit per cost that one unit of its group saves."""
    full = {group: torch.arange(group.count) for group in worth}
    saved = {group: cost.after(full) - cost.after(full | {group: torch.arange(1, group.count)}) for group in worth}
    return {group: units / max(saved[group], 1e-9) for group, units in worth.items()}


def shares_of(worth: list[Tensor], keep: float) -> list[float]:
    """Return each group's share when the best of all units are kept; ties go to the lower index in each group."""
    places = torch.cat([(torch.arange(len(units)) + 0.5) / len(units) for units in worth])
    ranked = torch.cat(worth)
    order = places.argsort(stable=True)
    order = order[ranked[order].argsort(descending=True, stable=True)]
    stays = torch.zeros(len(ranked), dtype=torch.bool)
    stays[order[: max(1, round(keep * len(ranked)))]] = True
    return [float(part.double().mean()) for part in stays.split([len(units) for units in worth])]
