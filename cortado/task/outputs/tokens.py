"""Tokens: outputs are logits over a vocabulary, at each place of a text."""

from dataclasses import dataclass
from typing import Any

from cortado.task.outputs.outputs import Rows, as_rows, first_floats_of
from cortado.task.outputs.softmax import Softmax


@dataclass(frozen=True)
class Tokens(Softmax):
    """Logits of the next token, (N, ..., vocabulary); the vocabulary is the last axis, whatever the number of axes.

    >>> rows = cortado.Tokens().rows(torch.rand(2, 7, 50))

    The divergence is KL, averaged over places. Of several outputs the first float tensor counts.
    """

    def rows(self, outputs: Any) -> Rows:
        return as_rows(first_floats_of(outputs), -1)
