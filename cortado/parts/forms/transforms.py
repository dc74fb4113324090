"""Transforms: where each entry of a filter stands in the base filter from which it is made."""

from math import isqrt

import torch
from torch import Tensor

from cortado.errors import BadValue

REPEAT, NEGATE, ROTATE, ROLL, TRANSLATE = range(5)
NAMES = ("repeat", "negate", "rotate", "roll", "translate")
FIXED_SLOTS = {NEGATE: 2, ROTATE: 4, ROLL: 4}
MOST_SLOTS = 64


def check_transform(transform: int, slots: int, kernel: tuple[int, ...]) -> None:
    """Raise BadValue for a number of copies that a transform does not make, or for kernels that it cannot move."""
    if not 0 <= transform < len(NAMES):
        raise BadValue(f"forms/transferred: the transforms are 0..{len(NAMES) - 1}, got {transform}.")
    if not 1 <= slots <= MOST_SLOTS or FIXED_SLOTS.get(transform, slots) != slots:
        wanted = FIXED_SLOTS.get(transform, f"1..{MOST_SLOTS}")
        raise BadValue(f"forms/transferred: {NAMES[transform]} makes {wanted} filters of one, got {slots}.")
    if transform in (ROTATE, ROLL) and (len(kernel) != 2 or kernel[0] != kernel[1]):
        raise BadValue(f"forms/transferred: only square kernels of two axes can be turned, got {kernel}.")
    if transform == TRANSLATE and (len(kernel) != 2 or isqrt(slots) ** 2 != slots):
        raise BadValue(
            f"forms/transferred: a larger filter of two axes has a square number of crops, got {slots} for {kernel}."
        )


def orientations(transform: int) -> int:
    """Return how many inputs of the base are orientations of one channel."""
    return 4 if transform == ROLL else 1


def base_kernel(transform: int, slots: int, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Return the kernel sizes of a base filter: larger where copies are crops of it, else those of the copies."""
    return tuple(size + isqrt(slots) - 1 for size in kernel) if transform == TRANSLATE else tuple(kernel)


def base_places(transform: int, slots: int, inputs: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Return where each entry of a copy stands in its flat base filter: int64 (slots, len(inputs) * kernel entries).

    `inputs` (int64): the input of the base that each input of the first copy reads.
    """
    sizes = base_kernel(transform, slots, kernel)
    rest = torch.Size(sizes).numel()
    grid = torch.arange(rest, device=inputs.device).reshape(sizes)
    found = []
    for slot in range(slots):
        read, spots = inputs, grid
        if transform == ROLL:
            read = inputs // 4 * 4 + (inputs % 4 - slot) % 4
        if transform in (ROTATE, ROLL):
            spots = torch.rot90(grid, slot, (0, 1))
        if transform == TRANSLATE:
            down, right = divmod(slot, isqrt(slots))
            spots = grid[down : down + kernel[0], right : right + kernel[1]]
        found.append((read[:, None] * rest + spots.reshape(1, -1)).flatten())
    return torch.stack(found)
