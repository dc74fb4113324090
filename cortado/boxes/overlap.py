"""Overlap of boxes: intersection over union, and boxes as corners or as centres with sizes."""

import torch
from torch import Tensor


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return (..., a, b): the intersection over union of each of a boxes (..., a, 4) with each of b boxes (..., b, 4).

    Boxes are corners x0, y0, x1, y1; the overlap with an empty box is 0.
    """
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    return common / (area(first)[..., :, None] + area(second)[..., None, :] - common).clamp(min=1e-30)


def area(corners: Tensor) -> Tensor:
    """Return (...): the area of boxes (..., 4) given by their corners; 0 for a box whose corners are in the wrong order."""
    return (corners[..., 2:] - corners[..., :2]).clamp(min=0).prod(-1)


def corners_of(centred: Tensor) -> Tensor:
    """Return boxes (..., 4) as corners x0, y0, x1, y1 from centre x, centre y, width and height."""
    half = centred[..., 2:] / 2
    return torch.cat([centred[..., :2] - half, centred[..., :2] + half], -1)


def centred_of(corners: Tensor) -> Tensor:
    """Return boxes (..., 4) as centre x, centre y, width and height from their corners."""
    return torch.cat([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1)
