"""Clock prices: channels ranked by what they are worth for the time they take, which is measured, not predicted."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cortado.methods.method import knob
from cortado.methods.prune.channels import PruneChannels
from cortado.network.coupling.cut import cut
from cortado.network.coupling.groups import Group, Groups
from cortado.network.view import View

LEAST = 0.05
"""A price is at least this share of the mean one: a time that is hardly there is mostly noise."""


@dataclass(frozen=True)
class PruneByClock(PruneChannels):
    """prune/channels with a price in time for a unit of each group; `keep` is a share of all units, in order of worth
    over price."""

    sensitivities: str = knob("", help="a price for each group that can be cut, with blanks between")

    def keeps(self, view: View, groups: list[Group], worth: list[Tensor]) -> dict[Group, Tensor]:
        sensitivities = [float(word) for word in self.sensitivities.split()]
        rates = [units / price for units, price in zip(worth, sensitivities, strict=True)]
        order = torch.cat(rates).sort(descending=True).values
        bar = order[max(0, round(self.keep * len(order)) - 1)]
        return self.best(groups, rates, [float((units >= bar).double().mean()) for units in rates])


def measured_prices(
    network: nn.Module, groups: Groups, able: list[Group], times_faster: Callable[[nn.Module], float]
) -> str:
    """The share of the network's time that a unit of each group takes: groups with as many units on as many tensors are
    halved together, and what is saved is shared among the units that went."""
    whole = 1 / times_faster(copy.deepcopy(network))
    kinds: dict[tuple[int, int], list[Group]] = {}
    for group in able:
        kinds.setdefault(kind_of(group), []).append(group)
    found = {}
    for kind, members in kinds.items():
        half = {group: torch.arange(group.count - group.count // 2) for group in members}
        small = copy.deepcopy(network)
        cut(small, groups, half)
        found[kind] = (whole - 1 / times_faster(small)) / sum(group.count // 2 for group in members)
    sensitivities = torch.tensor([found[kind_of(group)] for group in able], dtype=torch.float64)
    sensitivities = sensitivities.clamp(min=LEAST * float(sensitivities.clamp(min=0).mean()))
    return " ".join(f"{price:.4g}" for price in sensitivities.tolist())


def kind_of(group: Group) -> tuple[int, int]:
    return group.count, len(group.slots)
