"""Gains: rank channels by the gain of their batch norm."""

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.importance.importance import Importance
from cortado.layers.kinds import kind_of
from cortado.network.coupling.groups import Group
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


class Gains(Importance):
    """|gamma| of the norms that follow the units.  Liu et al., 2017 (network slimming)."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        raise BadNetwork(
            "importance/gains: single weights have no gain. Use it with prune/channels, or rank by magnitude."
        )

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        modules = dict(view.network.named_modules(remove_duplicate=False))
        found = []
        for group in groups:
            total, norms = torch.zeros(group.count), 0
            for slot in group.slots:
                kind = kind_of(modules[slot.layer])
                if kind is None or kind.family != "norm" or not slot.names[0].endswith(".weight"):
                    continue
                mine = slot.units >= 0
                gain = modules[slot.layer].weight.detach().abs().float().cpu()  # type: ignore[union-attr, operator]
                total.index_add_(0, slot.units[mine], gain[mine])
                norms += 1
            if not norms:
                raise BadNetwork(
                    f"importance/gains: {group.name} has no norm with a gain. Exclude it with where=, or rank by "
                    "magnitude, taylor or curvature."
                )
            found.append(total / norms)
        return found
