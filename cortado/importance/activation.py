"""Activation: weight magnitude times the size of the input activation."""

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.importance.importance import Importance
from cortado.layers.kinds import is_transposed
from cortado.network.statistics.gradients import input_squares
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


class Activation(Importance):
    """|w| times the root mean square of its input channel on calibration data.  Sun et al., 2024 (Wanda)."""

    def of(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        assert task.calibration is not None
        squares = input_squares(view, weights, task.calibration.first(512), 64)
        found = []
        for weight in weights:
            value = weight.dense().abs()
            if weight.layer_path not in squares or value.dim() < 2:
                raise BadNetwork(
                    f"importance/activation: {weight.path} has no recorded input activation. "
                    "Exclude it with where=, or rank by magnitude or taylor."
                )
            if weight.name.startswith("weight_hh"):
                raise BadNetwork(
                    f"importance/activation: {weight.path} reads the hidden state, which cannot be recorded. "
                    "Exclude it with where=, or rank by magnitude or taylor."
                )
            activation = squares[weight.layer_path].sqrt().to(value)
            if is_transposed(weight.layer):
                found.append(value * activation.reshape(-1, *[1] * (value.dim() - 1)))
                continue
            sizes = per_input(activation, value.shape)
            found.append(value * sizes.reshape(*sizes.shape, *[1] * (value.dim() - 2)))
        return found


def per_input(activation: Tensor, shape: torch.Size) -> Tensor:
    """Return the activation read by each entry of the first two axes: (1, inputs) or, if grouped, (outputs, inputs / groups)."""
    groups, rest = divmod(len(activation), shape[1])
    if rest or shape[0] % groups:
        return activation.mean().expand(1, shape[1])
    return (
        activation[None] if groups == 1 else activation.view(groups, shape[1]).repeat_interleave(shape[0] // groups, 0)
    )
