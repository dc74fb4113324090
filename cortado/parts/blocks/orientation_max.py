"""OrientationMax: a linear layer that reads the largest of a channel's four orientations."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.parts.blocks.block import Block


class OrientationMax(Block):
    """Inputs 4c to 4c + 3 (last axis) are orientations of channel c; the largest counts.  Cohen, Welling, 2016.

    Stands in a linear layer's place behind turned filters: its outputs do not change when the picture turns. `channels` is
    the number of inputs / 4, `biased` 1 with a bias.
    """

    facts = ("channels", "outputs", "biased")
    TURNS = 4

    def __init__(self, channels: int, outputs: int, biased: int = 1, device: Any = None) -> None:
        super().__init__()
        self.channels, self.outputs, self.biased = channels, outputs, biased
        self.linear = nn.Linear(channels, outputs, bool(biased), device=device)

    @classmethod
    def of(cls, layer: Any, start: str = "fit") -> "OrientationMax":
        """Return the block for a linear layer, with the sums of its weights, or with weights as `start: fresh` draws them."""
        outputs, inputs = layer.weight.shape
        made = cls(inputs // cls.TURNS, outputs, int(layer.bias is not None)).to(layer.weight)
        with torch.no_grad():
            fours = layer.weight.view(outputs, -1, cls.TURNS)
            # Of a new layer's weights, one of four, for as many inputs less.
            made.linear.weight.copy_(fours.sum(2) if start == "fit" else fours[:, :, 0] * cls.TURNS**0.5)
            if layer.bias is not None:
                made.linear.bias.copy_(layer.bias)
        return made

    def forward(self, values: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return the outputs; `values`: (..., 4 x channels)."""
        # In pairs: OpenVINO's largest along an axis is wrong where its result is quantized.
        one, two, three, four = values.unflatten(-1, (-1, self.TURNS)).unbind(-1)
        return self.linear(torch.maximum(torch.maximum(one, two), torch.maximum(three, four)))
