"""ScaleShift: a normalization with fixed statistics, as one factor and one summand per channel."""

import torch
from torch import Tensor, nn

from cortado.parts.blocks.block import Block


class ScaleShift(Block):
    """y = weight x + bias for every channel (axis 1): a batch norm in eval mode, folded."""

    facts = ("channels",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return len(self.weight)

    def forward(self, values: Tensor) -> Tensor:
        """Return the scaled and shifted values; `values`: (N, channels, ...) or (channels,)."""
        shape = [1] * values.dim()
        shape[min(1, values.dim() - 1)] = -1
        return values * self.weight.view(shape) + self.bias.view(shape)
