"""Grouped: stands in a convolution's place: a convolution in groups between two orders of channels."""

from typing import Any, Self

import torch
from torch import Tensor

from cortado.parts.blocks.block import Block
from cortado.parts.blocks.picked import Picked
from cortado.parts.blocks.window import WINDOW, Window, window_of, windowed
from cortado.parts.part import Arrays


class Grouped(Block):
    """A convolution over two axes in `groups` groups; the channels it reads and returns may be put in another order.

    `reads` and `returns` say whether there is an index for the inputs and for the outputs: neighbours that keep their
    channels in the block's order need none.
    """

    facts = ("inputs", "outputs", "groups", "biased", "reads", "returns", *WINDOW)

    def __init__(
        self, inputs: int, outputs: int, groups: int, window: Window, biased: bool, reads: bool, returns: bool
    ) -> None:
        """Raises BadValue for sizes of no convolution."""
        super().__init__()
        self.before = Picked(inputs) if reads else None
        self.conv = windowed(window, inputs, outputs, biased, groups)
        self.after = Picked(outputs) if returns else None

    def spec(self) -> dict[str, int]:
        conv = self.conv
        sizes = {"inputs": conv.in_channels, "outputs": conv.out_channels, "groups": conv.groups}
        has = {"biased": conv.bias is not None, "reads": self.before is not None, "returns": self.after is not None}
        return {**sizes, **{name: int(there) for name, there in has.items()}, **window_of(conv)}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> Self:
        window = {name: spec[name] for name in WINDOW}
        has = (bool(spec[name]) for name in ("biased", "reads", "returns"))
        return cls(spec["inputs"], spec["outputs"], spec["groups"], window, *has)

    def forward(self, values: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return (N, outputs, H', W') from values (N, inputs, H, W)."""
        values = values if self.before is None else self.before(values)
        values = self.conv(values)
        return values if self.after is None else self.after(values)
