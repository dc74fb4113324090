"""Zeros: a unit that is hardly ever active is worth little."""

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.groups.groups import Group
from cortado.network.gates import Gates
from cortado.network.signals import channel_axis
from cortado.network.view import View, Weight
from cortado.scores.score import Score
from cortado.task import Task


class Zeros(Score):
    """1 - APoZ: the share of a unit's signals, as its consumers read them, that are not zero.  Hu et al., 2016."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        raise BadNetwork(
            "scores/zeros: single weights have no signals. Use it with prune/channels, or rank by activation."
        )

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        assert task.calibration is not None
        gates = Gates(view, groups)
        active = [torch.zeros(group.count) for group in groups]
        counts = [torch.zeros(group.count) for group in groups]
        for seen in gates.signals(task.calibration.first(512), 64):
            for number, places in enumerate(gates.places):
                for slot, layer, signal in ((s, one, call) for s, one in places for call in seen.get(id(one), ())):
                    flat = signal.movedim(channel_axis(layer, signal), 0).flatten(1)
                    mine = slot.units >= 0
                    active[number].index_add_(0, slot.units[mine], (flat != 0).sum(1).float().cpu()[mine])
                    counts[number].index_add_(0, slot.units[mine], torch.full((len(flat),), float(flat.shape[1]))[mine])
        for group, count in zip(groups, counts, strict=True):
            if not bool(count.all()):
                raise BadNetwork(
                    f"scores/zeros: what reads the units of {group.name} is no layer that we can watch. "
                    "Leave it out with where=, or rank by magnitude."
                )
        return [a / c for a, c in zip(active, counts, strict=True)]
