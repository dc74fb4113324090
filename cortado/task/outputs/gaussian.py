"""Gaussian: the divergence of two Gaussians of one variance, for outputs that are numbers."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cortado.task.outputs.outputs import Outputs, Rows, signs_like


def variance_of(rows: Tensor) -> float:
    """Return the variance of each number about its mean, averaged over the numbers of rows (N, places, numbers).

    1 where all rows are equal.
    """
    flat = rows.detach().double().flatten(0, 1)
    variance = float(flat.var(0, unbiased=False).mean()) if len(flat) else 0.0
    return variance if variance > 0 else 1.0


def half_square(wanted: Tensor, found: Tensor, variance: float) -> Tensor:
    """Return (N,): half the squared error over the variance, averaged over numbers and places."""
    return 0.5 * (found - wanted).square().mean(-1).mean(-1) / variance


def square_slope(rows: Tensor, variance: float, generator: torch.Generator) -> Tensor:
    """Return xi . rows over the deviation, summed, with random signs xi."""
    xi = signs_like(rows, generator)
    return (rows * xi).sum() / (variance * rows.shape[-1] * rows.shape[1]) ** 0.5


@dataclass(frozen=True)
class Gaussian(Outputs):
    """Outputs that stand for Gaussians around them with one `variance`: the original network's, unless given."""

    variance: float | None = None

    def fitted(self, rows: Rows) -> Outputs:
        return self if self.variance is not None else replace(self, variance=variance_of(rows))

    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        return half_square(wanted, found, self.variance or variance_of(wanted))

    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        return square_slope(rows, self.variance or variance_of(rows), generator)
