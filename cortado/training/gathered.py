"""Gathered: the rows of all processes as one tensor, through which gradients pass back to where the rows came from."""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function


class RowsOfAll(Function):
    """All processes' rows, in order of rank.  Its backward adds up what every process has for a process's own rows."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        counts = [torch.zeros((), dtype=torch.long, device=rows.device) for _ in range(distributed.get_world_size())]
        distributed.all_gather(counts, torch.tensor(len(rows), device=rows.device))
        sizes = [int(one) for one in counts]
        # Processes whose shares of a batch differ send as many rows as the largest has.
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        context.start, context.count = sum(sizes[: distributed.get_rank()]), len(rows)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total[context.start : context.start + context.count]


def rows_of_all(rows: Tensor) -> Tensor:
    """Return the rows (N, ...) of all processes.

    A loss of them that every process computes, averaged over the processes as gradients are, moves weights as the same loss
    in one process does.
    """
    found = RowsOfAll.apply(rows.contiguous())
    assert isinstance(found, Tensor)
    return found
