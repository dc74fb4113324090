"""Targets: true boxes as rows of a tensor, padded so that every picture has as many."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadTask

NO_CLASS = -1
"""The class of a row that is no box."""
COLUMNS = 5
WAY_OUT = "Correct the boxes, or leave them out."


def padded_boxes(pictures: Sequence[Any], height: int, width: int, classes: int, most: int = 64) -> Tensor:
    """Return (N, `most`, 5) float: x0, y0, x1, y1 in pixels and the class of each box; class -1 in rows without a box.

    `pictures` has one array (boxes, 5) for each picture, (0, 5) for one without boxes. Boxes are clipped to the picture.
    Raises BadTask for rows of other sizes, more than `most` boxes, numbers that are not finite, corners in the wrong order,
    a box outside of its picture, and classes that are not in 0 .. `classes` - 1.
    """
    found = torch.zeros(len(pictures), most, COLUMNS)
    found[..., 4] = NO_CLASS
    edges = torch.tensor([width, height, width, height], dtype=torch.float32)
    for number, given in enumerate(pictures):
        rows = torch.as_tensor(given, dtype=torch.float32)
        rows = rows.reshape(0, COLUMNS) if not rows.numel() else rows
        if rows.dim() != 2 or rows.shape[1] != COLUMNS or len(rows) > most:
            raise BadTask(
                f"task: the boxes of picture {number} must be (boxes, {COLUMNS}), x0, y0, x1, y1 and class, at most {most}, got "
                f"shape {tuple(rows.shape)}. Pass one such array for each picture, and raise most= if there are more."
            )
        check_rows(rows, number, edges, classes)
        found[number, : len(rows), :4] = torch.minimum(rows[:, :4].clamp(min=0), edges)
        found[number, : len(rows), 4] = rows[:, 4]
    return found


def check_rows(rows: Tensor, number: int, edges: Tensor, classes: int) -> None:
    """Raise BadTask for a box of picture `number` that is none, or outside of the picture, or of an unknown class."""
    labels, corners = rows[:, 4], rows[:, :4]
    outside = (corners[:, :2] >= edges[:2]).any(1) | (corners[:, 2:] <= 0).any(1)
    faults = (
        (~rows.isfinite().all(1), "has numbers that are not finite"),
        (~(corners[:, 2:] > corners[:, :2]).all(1), "has no area: x0 < x1 and y0 < y1 must hold"),
        (outside, f"is outside of the picture of {int(edges[0])} x {int(edges[1])} pixels"),
        (
            (labels < 0) | (labels >= classes) | (labels != labels.round()),
            f"has a class that is not in 0..{classes - 1}",
        ),
    )
    for wrong, words in faults:
        if bool(wrong.any()):
            box = [round(value, 2) for value in rows[int(wrong.nonzero()[0])].tolist()]
            raise BadTask(f"task: a box of picture {number} {words}, got {box}. {WAY_OUT}")


def check_targets(targets: Any) -> Tensor:
    """Return targets that are padded boxes (N, boxes, 5).  Raises BadTask for others."""
    if not isinstance(targets, Tensor) or targets.dim() != 3 or targets.shape[2] != COLUMNS:
        got = f"shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise BadTask(
            f"task: targets of a detector must be boxes (N, boxes, {COLUMNS}), with class {NO_CLASS} in rows without a box, got "
            f"{got}. Make them with cortado.boxes.targets.padded_boxes."
        )
    return targets


def boxes_by_picture(targets: Tensor) -> list[dict[str, Tensor]]:
    """Return "boxes" (n, 4) and "labels" (n,) of each picture, without the padding."""
    made = []
    for rows in check_targets(targets):
        real = rows[rows[:, 4] >= 0]
        made.append({"boxes": real[:, :4], "labels": real[:, 4].long()})
    return made
