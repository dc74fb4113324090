"""A differentiable estimate of the bits that rounded weights will cost in the file."""

import math

import torch
from torch import Tensor

SIGN_BITS = 1.0
MAGNITUDE_BITS = 1.6
"""What doubling a magnitude costs; a unary code with adaptive probabilities is near this on trained networks."""


def nonzero_cost(nonzero: Tensor, memory: float = 4.0) -> Tensor:
    """Bits of one nonzero more, at each place of a weight: log2 of the odds against it, plus its sign.

    `nonzero`: bool, shape (rows, columns, taps) with rows = outputs, columns = inputs.  The odds of a place add up, in
    the log domain, from the share of nonzeros in its row, in its column, in its kernel and at its tap; each share is
    drawn towards the layer's by `memory` imaginary entries. So rows and columns that are nearly empty become dearer
    and empty out altogether, which the coder rewards. Returns float32, same shape.
    """
    mask = nonzero.float()
    rows, columns, taps = mask.shape
    overall = (mask.sum() + 0.5) / (mask.numel() + 1)

    def share(axes: tuple[int, ...], prior: Tensor) -> Tensor:
        entries = math.prod(mask.shape[axis] for axis in axes)
        return (mask.sum(axes, keepdim=True) + memory * prior) / (entries + memory)

    base = torch.logit(overall)
    odds = torch.logit(share((1, 2), overall)) + torch.logit(share((0, 2), overall)) - base
    if taps > 1:
        odds = odds + torch.logit(share((0, 1), overall)) - base
        expected = torch.sigmoid(odds)
        odds = torch.logit(share((2,), expected.mean(2, keepdim=True)).clamp(1e-5, 1 - 1e-5)) * 0.5 + odds * 0.5
    return (-odds / math.log(2)).clamp(0.3, 14.0) + SIGN_BITS


def bits_of_levels(levels: Tensor, cost: Tensor) -> Tensor:
    """Bits of real-valued levels (value / step): linear up to one step, logarithmic beyond.  A scalar.

    `levels` and `cost` broadcast: `cost` is what the first step away from zero costs at each place.
    """
    size = levels.abs()
    return (cost * size.clamp(max=1.0)).sum() + MAGNITUDE_BITS * torch.log2(size.clamp(min=1.0)).sum()


def as_planes(values: Tensor) -> Tensor:
    """A weight of any shape as (rows, columns, taps)."""
    if values.dim() <= 1:
        return values.reshape(1, -1, 1)
    return values.reshape(values.shape[0], values.shape[1], -1)
