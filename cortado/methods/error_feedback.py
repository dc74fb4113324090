"""Error feedback: give the weights of a matrix their final values input by input; inputs still to come make up for the errors."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cortado.methods.observed import Problem

BLOCK = 64
"""Inputs whose errors are passed on together to all that come later."""


def with_error_feedback(
    left: Tensor, problem: Problem, final: Callable[[int, Tensor], Tensor], block: int = BLOCK
) -> Tensor:
    """Give `left` (groups, inputs, outputs) its final values in place; return the squared error of each output (groups, outputs).

    `final(at, now)` gives input `at` its values (groups, outputs), which are `now` so far; it may read `left` up to the end of
    the block. Errors are passed on by the Cholesky factor of the inverse second moments (Frantar et al., 2023).
    """
    loss, pivots = left.new_zeros(left.shape[0], left.shape[2]), problem.pivots
    for start, stop in spans(left.shape[1], block):
        errors = torch.zeros_like(left[:, start:stop])
        for at in range(start, stop):
            value = final(at, left[:, at])
            error = (left[:, at] - value) / pivots[:, at, None]
            left[:, at], errors[:, at - start] = value, error
            rest = left[:, at + 1 : stop]
            rest.baddbmm_(problem.upper[:, at, at + 1 : stop, None], error[:, None], alpha=-1)
        left[:, stop:].baddbmm_(problem.upper[:, start:stop, stop:].mT, errors, alpha=-1)
        loss += errors.square_().sum(1)
    return loss


def spans(count: int, block: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Yield the first and the last but one of so many inputs, block by block."""
    for start in range(0, count, block):
        yield start, min(start + block, count)
