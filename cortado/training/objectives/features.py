"""features: the outputs of a teacher's inner layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.knobs.knob import knob
from cortado.training.objectives.objective import Objective, Taps, Terms, TrainingStep


@dataclass(frozen=True)
class Features(Objective):
    """The mean squared error between tapped layers of the network and of the teacher (hints).  Romero et al., 2015.

    Where widths differ, a linear regressor, a 1x1 convolution on feature maps, is learned along. Channels are axis 1 of
    (N, C, ...) of two or four axes and more, and the last axis of (N, tokens, C).
    """

    recordable: ClassVar[bool] = True
    taught: ClassVar[bool] = True

    at: str = knob("", help="layers of the network, by path, with commas; #2 is a layer's second call")
    of: str = knob("", help="the teacher's layers for them; empty: those of the same names")

    def pairs(self) -> list[tuple[str, str]]:
        """Return the path in the network and the one in the teacher of each layer.  Raises BadValue for none."""
        at, of = paths_in(self.at), paths_in(self.of or self.at)
        if not at or len(at) != len(of):
            raise BadValue(
                f"objectives/features: at names {len(at)} layers and of {len(of)}. Write at: layer3, and of with as many."
            )
        return list(zip(at, of, strict=True))

    def taps(self) -> Taps:
        return Taps(tuple(one for one, _ in self.pairs()), tuple(other for _, other in self.pairs()))

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        made = {}
        for number, (mine, wanted) in enumerate(self.both(step)):
            axis = axis_of_channels(mine)
            if mine.shape[axis] != wanted.shape[axis]:
                made[f"regressor{number}"] = regressor(mine, wanted)
        return made

    def terms(self, step: TrainingStep) -> Terms:
        found = []
        for number, (mine, wanted) in enumerate(self.both(step)):
            name = f"regressor{number}"
            given = step.modules[name](mine) if name in step.modules else mine
            if given.shape != wanted.shape:
                at, of = self.pairs()[number]
                raise BadNetwork(
                    f"{step.label}: {at} gives shape {tuple(given.shape)}, the teacher's {of} {tuple(wanted.shape)}. "
                    "Choose layers of the same size."
                )
            found.append(functional.mse_loss(given, wanted.detach()))
        return {"features": torch.stack(found).mean()}

    def both(self, step: TrainingStep) -> list[tuple[Tensor, Tensor]]:
        """Return the outputs of each pair of layers.  Raises BadValue without a teacher."""
        if not step.teachers:
            raise BadValue(
                "objectives/features: there is no teacher. Write teacher: original, or package.module:maker."
            )
        return [(step.taps[at], step.teachers[0].taps[of]) for at, of in self.pairs()]


def paths_in(text: str) -> list[str]:
    """Return the paths of a text with commas."""
    return [one.strip() for one in text.split(",") if one.strip()]


def axis_of_channels(values: Tensor) -> int:
    """Return the axis of channels: the last one of (N, tokens, C), else 1."""
    return 2 if values.dim() == 3 else 1


def regressor(mine: Tensor, wanted: Tensor) -> nn.Module:
    """Return a linear map over channels from the network's layer to the teacher's."""
    axis = axis_of_channels(mine)
    inputs, outputs = mine.shape[axis], wanted.shape[axis]
    if mine.dim() < 4:
        return nn.Linear(inputs, outputs)
    return (nn.Conv2d if mine.dim() == 4 else nn.Conv3d)(inputs, outputs, 1)
