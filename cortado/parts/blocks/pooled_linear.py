"""PooledLinear: stands in the place of a linear layer on flattened maps: the mean of each map, then a linear layer."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.blocks.block import Block
from cortado.parts.part import Arrays


class PooledLinear(Block):
    """Global average pooling and a linear layer (Lin, Chen, Yan, 2014).

    It reads what the linear layer read, maps of `places` places one after the other, so that the network's own flattening
    stays as it is.
    """

    facts = ("channels", "places", "outputs", "biased")

    def __init__(self, channels: int, places: int, outputs: int, biased: bool = True) -> None:
        """Raises BadValue for sizes below 1."""
        super().__init__()
        if min(channels, places, outputs) < 1:
            raise BadValue(f"blocks/pooled_linear: sizes must be at least 1, got {channels}, {places}, {outputs}.")
        self.places = places
        self.linear = nn.Linear(channels, outputs, biased)

    def spec(self) -> dict[str, int]:
        layer = self.linear
        sizes = {"channels": layer.in_features, "places": self.places, "outputs": layer.out_features}
        return {**sizes, "biased": int(layer.bias is not None)}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> Self:
        return cls(spec["channels"], spec["places"], spec["outputs"], bool(spec["biased"]))

    def forward(self, values: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return (..., outputs) from values (..., channels x places)."""
        return self.linear(values.unflatten(-1, (-1, self.places)).mean(-1))
