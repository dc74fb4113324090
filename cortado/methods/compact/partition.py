"""Partition: channels in groups of one size that share as much energy as possible."""

import torch
from torch import Tensor


def partition(
    energy: Tensor, groups: int, generator: torch.Generator, starts: int, sweeps: int = 20
) -> tuple[Tensor, Tensor]:
    """Return the group of each row and of each column of `energy` (rows, columns), groups of one size.

    Rows and columns are assigned in turn, each to the group with which it shares most, until nothing moves; the best of
    some random starts, of which the first are the channels in their present order.
    """
    rows, columns = energy.shape
    best, most = None, -1.0
    for number in range(starts):
        order = torch.arange(columns) if number == 0 else torch.randperm(columns, generator=generator)
        right = order.argsort() * groups // columns
        left, before = torch.zeros(rows, dtype=torch.long), -1.0
        for _ in range(sweeps):
            left = in_equal_groups(energy @ one_hot(right, groups, energy), groups)
            right = in_equal_groups(energy.T @ one_hot(left, groups, energy), groups)
            kept = shared_energy(energy, left, right)
            if kept <= before * (1 + 1e-9):
                break
            before = kept
        if before > most:
            best, most = (left, right), before
    assert best is not None
    return best


def one_hot(groups: Tensor, count: int, like: Tensor) -> Tensor:
    """Return (channels, groups) of ones and zeros."""
    return torch.nn.functional.one_hot(groups, count).to(like)


def shared_energy(energy: Tensor, left: Tensor, right: Tensor) -> float:
    """Return the energy between rows and columns of the same group."""
    return float((energy * (left[:, None] == right)).sum())


def in_equal_groups(gain: Tensor, groups: int) -> Tensor:
    """Return a group for each row of `gain` (rows, groups), so that all groups have the same number and the sum is large.

    Rows that would lose most by their second choice choose first; then pairs of rows change places while that pays.
    """
    rows = len(gain)
    left = [rows // groups] * groups
    best = gain.topk(min(2, groups), 1).values
    found = torch.zeros(rows, dtype=torch.long)
    order = (best[:, 0] - best[:, -1]).argsort(descending=True)
    choices = gain.argsort(1, descending=True).tolist()
    for row in order.tolist():
        group = next(one for one in choices[row] if left[one])
        left[group] -= 1
        found[row] = group
    return after_swaps(gain, found)


def after_swaps(gain: Tensor, found: Tensor) -> Tensor:
    """Return an assignment in which no two rows gain by changing places."""
    found = found.clone()
    tolerance = 1e-9 * float(gain.abs().max())
    for _ in range(4 * len(found)):
        moved = gain[:, found] - gain.gather(1, found[:, None])
        both = moved + moved.T
        at = int(both.argmax())
        one, other = at // len(found), at % len(found)
        if both[one, other] <= tolerance:
            break
        found[one], found[other] = found[other].clone(), found[one].clone()
    return found
