"""Code rates: the bits that the coder will take for a code, from counts of the codes so far."""

import torch
from torch import Tensor

LARGEST = 255
"""Largest code with a rate of its own."""
CONTEXTS = 10
"""Classes of places by how large the weights around are, half an octave apart."""
MEMORY = 8.0
"""Counts that a context takes from its whole weight."""


def contexts_of(sizes: Tensor) -> Tensor:
    """Return the context of each entry (int64): the product of what its row, column and tap say about its magnitude.

    `sizes`: magnitudes, shape of the weight. A vector has one context.
    """
    if sizes.dim() < 2 or not sizes.numel():
        return torch.zeros(sizes.shape, dtype=torch.int64)
    planes = sizes.reshape(sizes.shape[0], sizes.shape[1], -1)
    whole = planes.mean().clamp(min=1e-12)
    expected = torch.zeros(planes.shape)
    for axes in ((1, 2), (0, 2), (0, 1)):
        share = planes.mean(axes, keepdim=True) / whole
        expected = expected + 2 * torch.log2(share.clamp(min=2.0**-CONTEXTS))
    return (expected + CONTEXTS / 2).round().clamp(0, CONTEXTS - 1).long().view(sizes.shape)


def rates_of(codes: Tensor, grids: Tensor, contexts: Tensor) -> Tensor:
    """Return the bits of each magnitude of a code, (CONTEXTS, 2, LARGEST + 1), from codes of one weight with their grids."""
    width = LARGEST + 1
    place = (contexts.reshape(-1) * 2 + grids.reshape(-1).long()) * width + codes.reshape(-1).clamp(max=LARGEST).long()
    counts = torch.bincount(place, minlength=CONTEXTS * 2 * width).view(CONTEXTS, 2, width).double()
    whole = counts.sum(0)
    # Rare magnitudes follow a geometric law with the mean of their grid.
    numbers = torch.arange(width, dtype=torch.float64)
    mean = ((whole * numbers).sum(1) + 0.5) / (whole.sum(1) + 1.0)
    tail = (mean / (mean + 1))[:, None].log() * numbers + (1 / (mean + 1))[:, None].log()
    whole = whole + 2 * tail.exp()
    shared = whole / whole.sum(1, keepdim=True)
    counts = counts + MEMORY * shared
    bits = -(counts / counts.sum(2, keepdim=True)).log2()
    bits[..., 1:] += 1.0
    return bits.float()
