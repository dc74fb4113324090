"""Tokens: outputs are logits over a vocabulary, at each place of a text."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.task.outputs.outputs import Outputs, Rows, as_rows, first_floats_of
from cortado.task.outputs.softmax import kl, kl_slope, same_largest


@dataclass(frozen=True)
class Tokens(Outputs):
    """Logits of the next token, (N, ..., vocabulary); the vocabulary is the last axis, whatever the number of axes.

    >>> rows = cortado.Tokens().rows(torch.rand(2, 7, 50))

    The divergence is KL, averaged over places. Of several outputs the first float tensor counts.
    """

    def rows(self, outputs: Any) -> Rows:
        return as_rows(first_floats_of(outputs), -1)

    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        return kl(wanted, found, temperature)

    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        return kl_slope(rows, temperature, generator)

    def agreement(self, wanted: Rows, found: Rows) -> Tensor | None:
        return same_largest(wanted, found)

    @property
    def softens(self) -> bool:
        return True
