"""Temporal metric: consistency as the metric of a task whose samples are frames in order."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.metric import Metric, first_floats
from cortado.task.overlap import mean_of_classes
from cortado.video.clips import FLOW
from cortado.video.consistency import as_labels, flows_in_order, pair_overlaps
from cortado.video.flow import Flow

FOLLOWS = "follows"


def frames_in_order(frames: Data, flow: Flow) -> Data:
    """Return frames whose targets are "flow" (T, 2, H, W), to the frame before, and "follows" (T,), whether there is one.

    >>> task = Task(train, frames_in_order(video, Dis()), frames_in_order(later, Dis()), loss, temporal_consistency(11))

    The flow is computed once and kept as float16. Raises BadTask for fewer than two frames, and for other frames.
    """
    found = flows_in_order(frames, flow).half()
    targets = {
        FLOW: torch.cat([torch.zeros_like(found[:1]), found]),
        FOLLOWS: torch.arange(len(frames)) > 0,
    }
    return Data(frames.original().pick(slice(0, len(frames))).inputs, targets, frames.prepare)


def temporal_consistency(classes: int) -> Metric:
    """Return the metric of `consistency` as mean IoU, in %, for data from `frames_in_order`.  Liu et al., 2020."""
    join = partial(pair_rows, classes=classes)
    return Metric("temporal consistency", "%", predicted_frames, whole=mean_of_classes, join=join)


def predicted_frames(outputs: Any, targets: Any) -> list[tuple[Tensor, Tensor, bool]]:
    """Return for each frame its predicted labels (H, W), its flow, and whether a frame is before it.  Raises BadTask."""
    if not isinstance(targets, Mapping) or not {FLOW, FOLLOWS} <= targets.keys():
        raise BadTask(
            "video: temporal consistency needs frames in order with their flow. Make the data by frames_in_order."
        )
    labels = as_labels(first_floats(outputs), targets[FLOW].shape[2:]).cpu()
    return list(zip(labels, targets[FLOW].cpu(), targets[FOLLOWS].tolist(), strict=True))


def pair_rows(frames: list[tuple[Tensor, Tensor, bool]], classes: int) -> Tensor:
    """Return the overlaps of each frame with the one before, (T, 2 x classes); zeros where there is none."""
    rows, before = [], frames[0][0]
    for labels, flow, follows in frames:
        found = pair_overlaps(before[None], labels[None], flow[None].float(), classes)
        rows.append(found if follows else torch.zeros_like(found))
        before = labels
    return torch.cat(rows)
