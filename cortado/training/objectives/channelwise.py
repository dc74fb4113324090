"""channelwise: where each channel of the teacher is active, as a distribution over places."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cortado.knobs.knob import knob
from cortado.network.view import View
from cortado.task.task import Task
from cortado.training.objectives.layer_pairs import LayerPairs, as_places, check_places, mean_of_pairs
from cortado.training.objectives.matching import comparable, matching_modules, tapped_survivors
from cortado.training.objectives.objective import Objective, Terms, TrainingStep


@dataclass(frozen=True)
class Channelwise(LayerPairs):
    """T^2 x KL(teacher || network) between softmaxes of each channel over its places.  Shu et al., 2021.

    Of maps (N, C, H, W) and tokens (N, T, C); `at` empty: the outputs. Summed over places, averaged over samples, channels
    and pairs of layers. Void pixels and padding have no share in the softmaxes. Where widths differ, channels are made
    comparable as `features` does.
    """

    or_outputs: ClassVar[bool] = True

    temperature: float = knob(4.0, low=0.05, help="softmax temperature T of both networks")

    def with_teachers(self, teachers: Sequence[nn.Module], view: View, task: Task) -> Objective:
        return self if self.of else self.knowing(tapped_survivors(self.taps().network, teachers, view))

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        return matching_modules(self.both(step), self.survivors)

    def terms(self, step: TrainingStep) -> Terms:
        found = []
        for number, pair in enumerate(self.both(step)):
            check_places(step.label, pair, self.name())
            mine, wanted = comparable(pair, number, step.modules, step.label)
            found.append(channel_divergence(mine, wanted, self.temperature, pair.counted))
        return {"channelwise": mean_of_pairs(found)}


def channel_divergence(mine: Tensor, wanted: Tensor, temperature: float, counted: Tensor | None) -> Tensor:
    """Return T^2 x the mean over samples and channels of KL over places, of two (N, C, H, W) or (N, T, C).

    `counted`: (N, places), which of them count; None for all. A constant added to a channel changes nothing.
    """
    places, others = as_places(mine) / temperature, as_places(wanted) / temperature
    if counted is not None:
        # The least finite number, so that a sample without any place that counts gives 0 and no NaN.
        least = torch.finfo(places.dtype).min / 4
        places, others = (one.masked_fill(~counted[..., None], least) for one in (places, others))
    logs, wanted_logs = places.log_softmax(1), others.log_softmax(1)
    each = (wanted_logs.exp() * (wanted_logs - logs)).sum(1)
    return temperature**2 * each.mean()
