"""Point loss: what a detector without anchors learns: how good the box of its class is, and the box itself."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cortado.boxes.grid import split_outputs
from cortado.boxes.overlap import area
from cortado.boxes.points import PointGrid
from cortado.errors import BadTask


@dataclass(frozen=True)
class PointLoss:
    """Binary cross entropy of each class, and generalized intersection over union of boxes, both over the places with a box.

    >>> task = cortado.Task(..., loss=PointLoss(PointGrid.on((8, 16, 32), 240, 320)))

    A place learns, as the score of its class, the overlap of its box with the true one (Li et al., 2020), and its box by 1 - GIoU
    (Rezatofighi et al., 2019), `boxes` times. Easy background hardly counts: each term of it is weighted by the square of its
    score (Lin et al., 2017). Raises BadTask for outputs that do not fit the places, and for classes that the network lacks.
    """

    grid: PointGrid
    boxes: float = 2.0

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        logits, distances = split_outputs(outputs, self.grid.places)
        labels, corners = self.grid.matched(targets)
        if int(labels.max()) >= logits.shape[2]:
            raise BadTask(
                f"task: classes of boxes must lie in 0..{logits.shape[2] - 1}, as the detector has {logits.shape[2]} logits, got "
                f"{int(labels.max())}. Make the network for more classes, or correct the boxes."
            )
        found = self.grid.decoded(distances)
        positive = labels >= 0
        overlaps, generalized = giou(found[positive], corners[positive])
        wanted = torch.zeros_like(logits)
        wanted[positive, labels[positive]] = overlaps.detach().clamp(min=0)
        weight = torch.where(wanted > 0, 1.0, logits.detach().sigmoid().square())
        classes = (functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight).sum()
        return (classes + self.boxes * (1 - generalized).sum()) / positive.sum().clamp(min=1)


def giou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return (n,) and (n,): intersection over union, and the generalized one, of each box (n, 4) with its partner."""
    common = area(
        torch.cat([torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])], 1)
    )
    union = (area(first) + area(second) - common).clamp(min=1e-6)
    hull = torch.cat([torch.minimum(first[:, :2], second[:, :2]), torch.maximum(first[:, 2:], second[:, 2:])], 1)
    around = area(hull).clamp(min=1e-6)
    return common / union, common / union - (around - union) / around
