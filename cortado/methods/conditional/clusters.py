"""Clusters: neurons that are active together, in groups of one size."""

import torch
from torch import Tensor
from torch.nn import functional

ROUNDS = 8


def balanced_clusters(patterns: Tensor, count: int, generator: torch.Generator, rounds: int = ROUNDS) -> Tensor:
    """Return the cluster of each row of `patterns` (rows, features), (rows,), each of `count` clusters of one size.

    K-means of directions, in which rows choose in the order of how near their best centre is, and a full cluster takes no
    more. The number of rows is a multiple of `count`.
    """
    rows = functional.normalize(patterns, dim=1)
    centres = rows[torch.randperm(len(rows), generator=generator)[:count]]
    found = torch.zeros(len(rows), dtype=torch.int64)
    for _ in range(rounds):
        before, found = found, assigned(rows @ centres.T)
        sums = torch.zeros_like(centres).index_add_(0, found, rows)
        centres = functional.normalize(sums, dim=1)
        if torch.equal(before, found):
            break
    return found


def assigned(nearness: Tensor) -> Tensor:
    """Return the column of each row of (rows, clusters), (rows,): the nearest that is not full, the surest rows first."""
    rows, count = nearness.shape
    left, found = [rows // count] * count, torch.empty(rows, dtype=torch.int64)
    nearest = nearness.argsort(1, descending=True).tolist()
    for row in nearness.amax(1).argsort(descending=True).tolist():
        place = next(one for one in nearest[row] if left[one])
        found[row] = place
        left[place] -= 1
    return found
