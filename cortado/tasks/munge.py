"""Munge: make up inputs near given ones, by swaps with each one's nearest neighbour.  Bucila, Caruana, Niculescu-Mizil, 2006."""

from collections.abc import Sequence

import torch
from torch import Tensor

ROWS = 512
"""Samples whose distances are computed at once."""
CANDIDATES = 10_000
"""Of more samples than that, the neighbours are looked for among as many, drawn at random."""


def nearest(parts: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Return for each sample the number (N,) of its nearest other sample, by Euclidean distance over all parts (N, ...).

    Of two samples and more, none is its own neighbour. With over 10,000 samples, neighbours are among 10,000 of them.
    """
    rows = torch.cat([part.flatten(1).float() if part.dim() > 1 else part[:, None].float() for part in parts], 1)
    count = len(rows)
    among = torch.randperm(count, generator=generator)[:CANDIDATES].sort().values
    found = []
    for start in range(0, count, ROWS):
        own = torch.arange(start, min(start + ROWS, count))
        distances = torch.cdist(rows[own], rows[among])
        distances[own[:, None] == among] = torch.inf
        found.append(among[distances.argmin(1)])
    return torch.cat(found)


def munge(values: Tensor, neighbours: Tensor, swap: float, spread: float, generator: torch.Generator) -> Tensor:
    """Return made-up samples: with probability `swap`, an attribute is drawn around the neighbour's, else it is the sample's.

    `values` and `neighbours` are (N, ...) and row by row neighbours. Real numbers a and b give a draw from the normal
    distribution around b with deviation |a - b| / `spread`; whole numbers give b itself. An attribute is a value; in pictures
    (N, C, H, W) a pixel with all its channels, so that colours are not mixed. The paper writes into the neighbour too;
    here each sample is written once, and its neighbour's turn is its own.
    """
    shape = (len(values), 1, *values.shape[2:]) if values.dim() == 4 else values.shape
    swapped = torch.rand(shape, generator=generator) < swap
    if not values.is_floating_point():
        return torch.where(swapped, neighbours, values)
    noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
    return torch.where(swapped, neighbours + noise * (values - neighbours).abs() / spread, values)
