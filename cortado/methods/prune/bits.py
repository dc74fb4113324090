"""A differentiable estimate of the bits that quantized weights take in the file."""

import math

import torch
from torch import Tensor

SIGN_BITS = 1.0
MAGNITUDE_BITS = 1.6
"""Bits for doubling a magnitude; a unary code with adaptive probabilities is close to this on trained networks."""


def nonzero_cost(nonzero: Tensor, memory: float = 4.0) -> Tensor:
    """Return the bits of one more nonzero at each place of a weight: the log2 odds against it, plus its sign.

    `nonzero`: bool, shape (rows, columns, taps) with rows = outputs, columns = inputs. The log odds of a place add up
    from the share of nonzeros in its row, its column, its kernel and at its tap; each share is smoothed towards the
    layer's by `memory` pseudo-counts. Nearly empty rows and columns thus become more expensive and empty out, which
    the coder rewards. Return float32, same shape.
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
    """Return the bits of real-valued levels (value / step), a scalar: linear up to one step, logarithmic beyond.

    `levels` and `cost` broadcast; `cost` is the cost of the first step away from zero at each place.
    """
    size = levels.abs()
    return (cost * size.clamp(max=1.0)).sum() + MAGNITUDE_BITS * torch.log2(size.clamp(min=1.0)).sum()


def as_planes(values: Tensor) -> Tensor:
    """Reshape a weight to (rows, columns, taps)."""
    if values.dim() <= 1:
        return values.reshape(1, -1, 1)
    return values.reshape(values.shape[0], values.shape[1], -1)
