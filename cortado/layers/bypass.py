"""Bypass: stands in for a removed block and returns its first input."""

from typing import Any

from torch import Tensor, nn


class Bypass(nn.Identity):
    """nn.Identity with a block's call signature: masks and other extra arguments are ignored."""

    def forward(self, input: Tensor, *others: Any, **named: Any) -> Tensor:  # noqa: A002 - as nn.Identity calls it
        """Return `input`, the same tensor."""
        return input
