"""Boxes: outputs are the corners of boxes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.task.outputs.gaussian import Gaussian
from cortado.task.outputs.outputs import Rows, as_rows, first_floats_of

SAME_BOX = 0.5
"""Least intersection over union of two boxes that count as one."""


@dataclass(frozen=True)
class Boxes(Gaussian):
    """Corners x0, y0, x1, y1 of boxes: (N, 4), (N, boxes, 4) or maps (N, 4, H, W), before any is dropped.

    >>> corners = cortado.Boxes().rows(torch.rand(2, 5, 4))

    Compared as numbers with one variance for all four, that of the original network's boxes unless given. Two networks
    agree on a box where both boxes overlap by an intersection over union of 0.5. Of several outputs the first float tensor
    counts.
    """

    def rows(self, outputs: Any) -> Rows:
        return as_rows(first_floats_of(outputs))

    def agreement(self, wanted: Rows, found: Rows) -> Tensor | None:
        return (overlap_of_pairs(wanted, found) >= SAME_BOX).double().mean(-1)


def overlap_of_pairs(first: Tensor, second: Tensor) -> Tensor:
    """Return (...): the intersection over union of each box (..., 4) with its partner, whatever the order of its corners."""
    first, second = ordered_corners(first), ordered_corners(second)
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (first, second)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-30)


def ordered_corners(boxes: Tensor) -> Tensor:
    """Return boxes (..., 4) with the lower corner first."""
    return torch.cat([torch.minimum(boxes[..., :2], boxes[..., 2:]), torch.maximum(boxes[..., :2], boxes[..., 2:])], -1)
