"""features: the outputs of a teacher's inner layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from cortado.knobs.knob import knob
from cortado.network.view import View
from cortado.task.task import Task
from cortado.training.objectives.counted import mean_over
from cortado.training.objectives.layer_pairs import LayerPairs, as_places, mean_of_pairs
from cortado.training.objectives.matching import comparable, matching_modules, tapped_survivors
from cortado.training.objectives.objective import Objective, Terms, TrainingStep


@dataclass(frozen=True)
class Features(LayerPairs):
    """The mean squared error between tapped layers of the network and of the teacher (hints).  Romero et al., 2015.

    Averaged over samples, channels, places and pairs of layers. Channels are axis 1 of (N, C, ...) of two or four axes and
    more, and the last axis of (N, tokens, C). Void pixels and padding do not count.

    Where widths differ, a linear regressor, a 1x1 convolution on feature maps, is learned along. A network that was cut from
    its teacher, the original network, needs none: it is compared with the channels that survived. `regressor: always` learns
    a map for equal widths too, as for the hidden states of TinyBERT (Jiao et al., 2020).
    """

    recordable: ClassVar[bool] = True
    taught: ClassVar[bool] = True

    regressor: str = knob(
        "needed", one_of=("needed", "always"), help="when to learn a linear map: where widths differ, or always"
    )

    def with_teachers(self, teachers: Sequence[nn.Module], view: View, task: Task) -> Objective:
        return self if self.of else self.knowing(tapped_survivors(self.taps().network, teachers, view))

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        return matching_modules(self.both(step), self.survivors, always=self.regressor == "always")

    def terms(self, step: TrainingStep) -> Terms:
        found = []
        for number, pair in enumerate(self.both(step)):
            mine, wanted = comparable(pair, number, step.modules, step.label)
            found.append(feature_error(mine, wanted, pair.counted))
        return {"features": mean_of_pairs(found)}


def feature_error(mine: Tensor, wanted: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean squared error over channels and over the places that count, (N, places); None: all."""
    if counted is None:
        return functional.mse_loss(mine, wanted)
    return mean_over((as_places(mine) - as_places(wanted)).square().mean(-1), counted)
