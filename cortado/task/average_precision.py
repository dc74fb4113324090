"""Average precision: how well boxes are found, over all pictures, classes and overlaps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cortado.boxes.overlap import overlap
from cortado.boxes.targets import boxes_by_picture
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
    in a list, or padded boxes (N, boxes, 5) with class -1 in rows without one. A class without true boxes does not count.
    `overlaps`: least intersections over union of a hit, by default 0.5, 0.55 .. 0.95; ONE_OVERLAP for 0.5. At most
    `most` detections per class and picture count. The interval is that of the jackknife over pictures.  Lin et al., 2014.
    """
    name = "mAP" if len(overlaps) > 1 else f"mAP at IoU {overlaps[0]:g}"
    each = partial(hits_of_batch, classes=classes, detections=detections, overlaps=overlaps, most=most)
    return Metric(name, "%", each, value=average_precision, without=precision_without)


def hits_of_batch(
    outputs: Any, targets: Any, classes: int, detections: Callable[[Any], Sequence[Any]] | None,
    overlaps: tuple[float, ...], most: int,
) -> list[Hits]:  # fmt: skip
    """Return the hits of each picture.  Raises BadTask if pictures, boxes and labels do not fit together."""
    found = outputs if detections is None else detections(outputs)
    targets = boxes_by_picture(targets) if isinstance(targets, Tensor) else targets
    if not isinstance(targets, (list, tuple)) or not isinstance(found, (list, tuple)) or len(found) != len(targets):
        counts = [len(one) if isinstance(one, (list, tuple)) else type(one).__name__ for one in (found, targets)]
        raise BadTask(
            f"task: mAP needs a list of detections and a list of targets, one per picture, got {counts[0]} and {counts[1]}. "
            "Pass detections=, a function from the network's outputs to such a list."
        )
    return [hits_of(one, other, classes, overlaps, most) for one, other in zip(found, targets, strict=True)]


def hits_of(found: Any, truth: Any, classes: int, overlaps: tuple[float, ...], most: int) -> Hits:
    """Return the hits of one picture: each detection, best first, takes the free true box of its class that it overlaps most."""
    boxes, known = found["boxes"].reshape(-1, 4).double().cpu(), truth["boxes"].reshape(-1, 4).double().cpu()
    labels, true = found["labels"].reshape(-1).long().cpu(), truth["labels"].reshape(-1).long().cpu()
    scores = found["scores"].reshape(-1).double().cpu()
    for what, one in (("detections", labels), ("targets", true)):
        if one.numel() and not 0 <= int(one.min()) <= int(one.max()) < classes:
            raise BadTask(
                f"task: labels of {what} must lie in 0..{classes - 1}, got {int(one.min())}..{int(one.max())}. Correct them, "
                "or the number of classes."
            )
    order = scores.argsort(descending=True, stable=True)
    if len(order) > most:
        order = order[
            (functional.one_hot(labels[order], classes).cumsum(0) <= most).gather(1, labels[order, None])[:, 0]
        ]
    same = labels[order, None] == true[None]
    marks = matched(torch.where(same, overlap(boxes[order], known), -1.0), overlaps)
    return Hits(scores[order], labels[order], marks, torch.bincount(true, minlength=classes))


def matched(shares: Tensor, overlaps: tuple[float, ...]) -> Tensor:
    """Return (overlaps, detections): whether each detection, in order, is a hit, given its overlap with each true box."""
    found, least = shares.numpy(), np.array(overlaps) - 1e-10
    marks, rows = np.zeros((len(overlaps), len(found)), bool), np.arange(len(overlaps))
    free = np.ones((len(overlaps), found.shape[1]), bool)
    near = np.flatnonzero(found.max(1) >= least.min()) if found.size else ()
    for number in near:
        left = np.where(free, found[number], -1)
        best = left.argmax(1)
        marks[:, number] = hit = left[rows, best] >= least
        free[rows[hit], best[hit]] = False
    return torch.from_numpy(marks)


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


def precision_without(rows: Sequence[Hits], group: Tensor, groups: int) -> Tensor:
    """Return (groups,): `average_precision` without the pictures of each group, given the group (N,) of each picture.

    Precision can only be highest where a detection is a hit, so that each group needs no more than the hits.
    """
    sizes = torch.tensor([len(row.scores) for row in rows])
    owner = group.repeat_interleave(sizes)
    scores, labels = torch.cat([row.scores for row in rows]), torch.cat([row.labels for row in rows])
    hits = torch.cat([row.hits for row in rows], 1)
    order = scores.argsort(descending=True, stable=True)
    owner, labels, hits = owner[order], labels[order], hits[:, order]
    known = torch.stack([row.known for row in rows])
    left = known.sum(0) - torch.zeros(groups, known.shape[1], dtype=known.dtype).index_add(0, group, known)
    found = torch.full((groups, known.shape[1], len(hits)), torch.nan, dtype=torch.float64)
    for label in known.sum(0).nonzero().flatten().tolist():
        mine = labels == label
        theirs = functional.one_hot(owner[mine], groups).T.contiguous()
        ranks = torch.arange(1, theirs.shape[1] + 1) - theirs.cumsum(1)
        for number, marks in enumerate(hits[:, mine]):
            found[:, label, number] = hit_precision(theirs[:, marks] == 0, ranks[:, marks], left[:, label])
    found[left == 0] = torch.nan
    return found.nanmean((1, 2)).nan_to_num(0.0)


def hit_precision(counted: Tensor, ranks: Tensor, known: Tensor) -> Tensor:
    """Return (groups,): average precisions of one class, given for each group which hits count (groups, hits), the rank of each
    hit among the detections that count, and the number of true boxes (groups,)."""
    if not ranks.shape[1]:
        return torch.zeros(len(known), dtype=torch.float64)
    right = counted.cumsum(1).double()
    precision = torch.where(counted, right / ranks.clamp(min=1), 0.0)
    precision = precision.flip(1).cummax(1).values.flip(1)
    recalls = (right / known.clamp(min=1)[:, None]).contiguous()
    places = torch.searchsorted(recalls, RECALLS.expand(len(known), -1).contiguous())
    return torch.where(places < ranks.shape[1], precision.gather(1, places.clamp(max=ranks.shape[1] - 1)), 0.0).mean(1)
