"""Numbers: outputs are numbers without a softmax: regression, embeddings, depth."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cortado.task.outputs.gaussian import half_square, square_slope, variance_of
from cortado.task.outputs.outputs import Outputs, Rows, as_rows, first_floats_of


@dataclass(frozen=True)
class Numbers(Outputs):
    """Numbers: (N, numbers), (N, places, numbers), maps (N, numbers, H, W ...), or one per sample (N,).

    >>> fitted = cortado.Numbers().fitted(torch.rand(8, 1, 3))

    They stand for Gaussians around them, all with the same `variance`: that of the original network's outputs on the data,
    about each number's mean, unless given. Their divergence is half the squared error divided by it, averaged over the
    numbers: half the share of variance that a change loses, independent of units, width and numbers that carry no
    information. It agrees with squared-error losses and with cosines of centered embeddings. Of several outputs the first
    float tensor counts.
    """

    variance: float | None = None

    def rows(self, outputs: Any) -> Rows:
        return as_rows(first_floats_of(outputs))

    def fitted(self, rows: Rows) -> Outputs:
        return self if self.variance is not None else replace(self, variance=variance_of(rows))

    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        return half_square(wanted, found, self.variance or variance_of(wanted))

    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        return square_slope(rows, self.variance or variance_of(rows), generator)
