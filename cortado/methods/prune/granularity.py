"""Granularity: blocks of a weight that stay or go together, as rows x columns: rows are its first axis, columns the rest."""

import math
import re

import torch
from torch import Tensor
from torch.nn.functional import pad

from cortado.errors import BadValue
from cortado.methods.prune.ranking import most_important

Block = tuple[int, int]
"""Rows and columns."""


def read_block(text: str, method: str) -> Block:
    """Return the block that a knob's text means: "16x1" is (16, 1).  Raises BadValue for another text."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise BadValue(
            f"{method}: block must be rows x columns, got {text!r}. Write block=16x1, or 1x1 for single weights."
        )
    return int(found[1]), int(found[2])


def block_sums(values: Tensor, block: Block) -> Tensor:
    """Return the sum over each block of a weight's entries, (row blocks, column blocks); those at the edge are smaller."""
    rows, columns = block
    matrix = values.reshape(len(values), math.prod(values.shape[1:])) if values.ndim else values.reshape(1, 1)
    high, wide = matrix.shape
    padded = pad(matrix, (0, -wide % columns, 0, -high % rows))
    return padded.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).sum((1, 3))


def blocks_alive(there: list[Tensor], block: Block) -> list[Tensor]:
    """Return which blocks have an entry left, for masks of entries."""
    return there if block == (1, 1) else [block_sums(mask.float(), block) > 0 for mask in there]


def most_important_blocks(
    importances: list[Tensor], there: list[Tensor], block: Block, share: float, across: bool, of_survivors: bool
) -> list[Tensor]:
    """Return masks of the entries in the blocks whose importance, summed over the entries that are `there`, is highest.

    `share` is that of all blocks, or of those with an entry left; exactly so many stay. Nothing outside `there` stays.
    """
    alive = blocks_alive(there, block)
    if block == (1, 1):
        return most_important(importances, alive, share, across, of_survivors)
    sums = [block_sums(s.to(mask.device) * mask, block) for s, mask in zip(importances, there, strict=True)]
    kept = most_important(sums, alive, share, across, of_survivors)
    return [block_entries(one, block, mask.shape) & mask for one, mask in zip(kept, there, strict=True)]


def block_entries(blocks: Tensor, block: Block, shape: torch.Size) -> Tensor:
    """Return the mask of a weight's entries for a mask of its blocks."""
    high = shape[0] if shape else 1
    wide = shape.numel() // max(1, high)
    whole = blocks.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return whole[:high, :wide].reshape(shape)
