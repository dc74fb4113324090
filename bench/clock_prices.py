"""Clock prices: channels ranked by what they are worth for the time they take, which is measured, not predicted."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from cortado.methods.method import Method, knob
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.groups import worth_of
from cortado.methods.prune.quota import LEAST, Kept, Quota, Worth
from cortado.methods.prune.reconstruct import readers_of, reconstruct
from cortado.network.coupling.cut import cut
from cortado.network.coupling.groups import Group, Groups
from cortado.network.view import View
from cortado.task.task import Task

LEAST_PRICE = 0.05
"""A price is at least this share of the mean one: a time that is hardly there is mostly noise."""


@dataclass(frozen=True)
class PruneByClock(Method):
    """prune/channels with a price in time for a unit of each group; `keep` is a share of all units, in order of worth
    over price."""

    lossy = True

    keep: float = knob(0.5, low=0.0, high=1.0, help="share kept")
    by: str = knob("curvature", help="importance measure that ranks the channels")
    least: float = knob(LEAST, low=0.0, high=1.0, help="minimum share of each group's channels kept")
    multiple: int = knob(8, low=1, help="round channel counts to multiples of this")
    reconstruct: bool = knob(False, help="refit the layers that read removed channels by least squares")
    sensitivities: str = knob("", help="a price for each group that can be cut, with blanks between")

    def apply(self, view: View, task: Task) -> None:
        groups = PruneChannels(where=self.where).groups(view)
        keeps = self.allocate(worth_of(self.by, groups, view, task))
        keeps = {group: keep for group, keep in keeps.items() if len(keep) < group.count}
        readers = readers_of(view, list(keeps)) if self.reconstruct else []
        view.cut(keeps)
        reconstruct(view, task, readers)

    def allocate(self, worth: Worth) -> Kept:
        """The units of each group that stay."""
        sensitivities = [float(word) for word in self.sensitivities.split()]
        rates = {group: units / price for (group, units), price in zip(worth.items(), sensitivities, strict=True)}
        order = torch.cat(list(rates.values())).sort(descending=True).values
        bar = order[max(0, round(self.keep * len(order)) - 1)]
        quota = Quota(self.name(), "channels", "time", self.keep, True, self.least, self.multiple)
        return quota.best(rates, [float((units >= bar).double().mean()) for units in rates.values()])


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
    sensitivities = sensitivities.clamp(min=LEAST_PRICE * float(sensitivities.clamp(min=0).mean()))
    return " ".join(f"{price:.4g}" for price in sensitivities.tolist())


def kind_of(group: Group) -> tuple[int, int]:
    return group.count, len(group.slots)
