"""Average precision: how well boxes are found, over all pictures, classes and overlaps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.metric import Metric

RECALLS = torch.linspace(0, 1, 101, dtype=torch.float64)
"""Recalls at which precision is read."""
COCO_OVERLAPS = tuple(0.5 + 0.05 * step for step in range(10))
ONE_OVERLAP = (0.5,)


@dataclass(frozen=True)
class Hits:
    """One picture's detections, best first: their score, class, and whether each is a hit at every overlap asked for.

    `scores` and `labels` (detections,), `hits` (overlaps, detections), `known` (classes,): the number of true boxes.
    """

    scores: Tensor
    labels: Tensor
    hits: Tensor
    known: Tensor


def mean_average_precision(
    classes: int,
    detections: Callable[[Any], Sequence[Any]] | None = None,
    overlaps: tuple[float, ...] = COCO_OVERLAPS,
    most: int = 100,
) -> Metric:
    """Return the metric mean average precision, in %, as COCO defines it: 101 recalls, averaged over classes and overlaps.

    `detections(outputs)` returns a dict for each picture: "boxes" (n, 4) as x0, y0, x1, y1, "scores" (n,) and "labels" (n,)
    in 0 .. `classes` - 1; by default the outputs are such dicts. Targets are dicts of "boxes" and "labels", one per picture,
    in a list. `overlaps`: least intersections over union of a hit, by default 0.5, 0.55 .. 0.95; ONE_OVERLAP for 0.5. At most
    `most` detections per class and picture count. The interval is that of the jackknife over pictures.  Lin et al., 2014.
    """
    name = "mAP" if len(overlaps) > 1 else f"mAP at IoU {overlaps[0]:g}"
    each = partial(hits_of_batch, classes=classes, detections=detections, overlaps=overlaps, most=most)
    return Metric(name, "%", each, value=average_precision)


def hits_of_batch(
    outputs: Any, targets: Any, classes: int, detections: Callable[[Any], Sequence[Any]] | None,
    overlaps: tuple[float, ...], most: int,
) -> list[Hits]:  # fmt: skip
    """Return the hits of each picture.  Raises BadTask if pictures, boxes and labels do not fit together."""
    found = outputs if detections is None else detections(outputs)
    if not isinstance(targets, (list, tuple)) or not isinstance(found, (list, tuple)) or len(found) != len(targets):
        counts = [len(one) if isinstance(one, (list, tuple)) else type(one).__name__ for one in (found, targets)]
        raise BadTask(
            f"task: mAP needs a list of detections and a list of targets, one per picture, got {counts[0]} and {counts[1]}. "
            "Pass detections=, a function from the network's outputs to such a list."
        )
    return [hits_of(one, other, classes, overlaps, most) for one, other in zip(found, targets, strict=True)]


def hits_of(found: Any, truth: Any, classes: int, overlaps: tuple[float, ...], most: int) -> Hits:
    """Return the hits of one picture: each detection, best first, takes the free true box that it overlaps most."""
    boxes, known = found["boxes"].reshape(-1, 4).double().cpu(), truth["boxes"].reshape(-1, 4).double().cpu()
    labels, true = found["labels"].reshape(-1).long().cpu(), truth["labels"].reshape(-1).long().cpu()
    scores = found["scores"].reshape(-1).double().cpu()
    for what, one in (("detections", labels), ("targets", true)):
        if one.numel() and not 0 <= int(one.min()) <= int(one.max()) < classes:
            raise BadTask(
                f"task: labels of {what} must lie in 0..{classes - 1}, got {int(one.min())}..{int(one.max())}. Correct them, "
                "or the number of classes."
            )
    kept, marks = [], []
    for label in labels.unique().tolist():
        mine = (labels == label).nonzero().flatten()
        mine = mine[scores[mine].argsort(descending=True, stable=True)][:most]
        kept.append(mine)
        marks.append(matched(overlap(boxes[mine], known[true == label]), overlaps))
    order = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.long)
    hits = torch.cat(marks, 1) if marks else torch.zeros(len(overlaps), 0, dtype=torch.bool)
    return Hits(scores[order], labels[order], hits, torch.bincount(true, minlength=classes))


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return (a, b): the intersection over union of each of a boxes (a, 4) with each of b boxes (b, 4)."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(-1) for box in (first, second)]
    return common / (areas[0][:, None] + areas[1][None] - common).clamp(min=1e-30)


def matched(shares: Tensor, overlaps: tuple[float, ...]) -> Tensor:
    """Return (overlaps, detections): whether each detection, in order, is a hit, given its overlap with each true box."""
    marks = torch.zeros(len(overlaps), len(shares), dtype=torch.bool)
    for row, least in enumerate(overlaps):
        free = shares.clone()
        for number in range(len(shares) if shares.shape[1] else 0):
            best = int(free[number].argmax())
            if float(free[number, best]) >= least - 1e-10:
                marks[row, number] = True
                free[:, best] = -1
    return marks


def average_precision(rows: Sequence[Hits]) -> float:
    """Return the mean over classes that occur and overlaps of the area under precision over recall; 0 without true boxes."""
    known = torch.stack([row.known for row in rows]).sum(0)
    scores, labels = torch.cat([row.scores for row in rows]), torch.cat([row.labels for row in rows])
    hits = torch.cat([row.hits for row in rows], 1)
    order = scores.argsort(descending=True, stable=True)
    labels, hits = labels[order], hits[:, order].double()
    found = [
        class_precision(hits[:, labels == label], int(known[label])) for label in known.nonzero().flatten().tolist()
    ]
    return float(torch.cat(found).mean()) if found else 0.0


def class_precision(hits: Tensor, known: int) -> Tensor:
    """Return (overlaps,): the average precision of one class, its detections in order, given its number of true boxes."""
    if not hits.shape[1]:
        return torch.zeros(len(hits), dtype=torch.float64)
    right = hits.cumsum(1)
    precision = right / torch.arange(1, hits.shape[1] + 1, dtype=torch.float64)
    # The best precision at this recall or a higher one.
    precision = precision.flip(1).cummax(1).values.flip(1)
    places = torch.searchsorted(right / known, RECALLS.expand(len(hits), -1).contiguous())
    reached = places < hits.shape[1]
    return torch.where(reached, precision.gather(1, places.clamp(max=hits.shape[1] - 1)), 0.0).mean(1)
