"""Bypass: stands in a removed block's place and returns its first input."""

from typing import Any

from torch import Tensor

from cortado.parts.blocks.block import Block


class Bypass(Block):
    """Has a block's call signature: masks and other extra arguments are ignored."""

    def forward(self, values: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return `values`, the same tensor."""
        return values
