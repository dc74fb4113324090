"""Zeros: rank units by how often they are active."""

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.importance.importance import Importance
from cortado.network.coupling.groups import Group
from cortado.network.statistics.activations import channel_axis
from cortado.network.statistics.channel_gradients import ChannelGradients
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


class Zeros(Importance):
    """1 - APoZ: the share of nonzero activations of a unit, as its consumers read them.  Hu et al., 2016."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        raise BadNetwork(
            "importance/zeros: single weights have no activations. Use it with prune/channels, or rank by activation."
        )

    def of_units(self, groups: list[Group], view: View, task: Task) -> list[Tensor]:
        assert task.calibration is not None
        channel_gradients = ChannelGradients(view, groups)
        active = [torch.zeros(group.count) for group in groups]
        counts = [torch.zeros(group.count) for group in groups]
        for seen in channel_gradients.activations(task.calibration.first(512), 64):
            for number, places in enumerate(channel_gradients.places):
                for slot, layer, activation in ((s, one, call) for s, one in places for call in seen.get(id(one), ())):
                    flat = activation.movedim(channel_axis(layer, activation), 0).flatten(1)
                    mine = slot.units >= 0
                    active[number].index_add_(0, slot.units[mine], (flat != 0).sum(1).float().cpu()[mine])
                    counts[number].index_add_(0, slot.units[mine], torch.full((len(flat),), float(flat.shape[1]))[mine])
        for group, count in zip(groups, counts, strict=True):
            if not bool(count.all()):
                raise BadNetwork(
                    f"importance/zeros: cannot record the activations of {group.name}: a consumer is of an unsupported "
                    "kind. Exclude the group with where=, or rank by magnitude."
                )
        return [a / c for a, c in zip(active, counts, strict=True)]
