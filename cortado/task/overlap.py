"""Overlap: intersection over union for segmentation, class by class."""

from functools import partial

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.metric import Metric


def overlaps(outputs: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Return for each image (N, 2 x `classes`): pixels of intersection and of union, class by class.

    `outputs` are logits (N, at least `classes`, H, W), `targets` (N, H, W). Pixels with target `classes` are void and
    ignored; a prediction above the classes is a miss. Raises BadTask for other targets.
    """
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) <= classes:
        raise BadTask(
            f"task: labels of pixels must lie in 0..{classes}, where {classes} is void, "
            f"got {int(targets.min())}..{int(targets.max())}. Correct the labels."
        )
    sides = max(outputs.shape[1], classes + 1)
    pairs = (targets * sides + outputs.argmax(1)).flatten(1)
    counts = torch.stack([torch.bincount(one, minlength=sides * sides).view(sides, sides) for one in pairs])
    known = counts[:, :classes]
    common = known.diagonal(dim1=1, dim2=2)[:, :classes]
    either = known.sum(2) + known.sum(1)[:, :classes] - common
    return torch.cat([common, either], 1)


def mean_of_classes(sums: Tensor) -> Tensor:
    """Map (..., 2 x classes) to (...): intersection over union, averaged over the classes that occur."""
    common, either = sums.double().chunk(2, -1)
    occurs = either > 0
    return torch.where(occurs, common / either.clamp(min=1), 0.0).sum(-1) / occurs.sum(-1).clamp(min=1)


def mean_iou(classes: int) -> Metric:
    """Return the metric of mean intersection over union of `classes` classes, over all images, in %.  Everingham et al., 2010."""
    return Metric("mean IoU", "%", partial(overlaps, classes=classes), whole=mean_of_classes)
