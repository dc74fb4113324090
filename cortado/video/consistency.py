"""Consistency: whether what moves is called the same in the next frame."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadTask
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.data import Data
from cortado.task.measure import run
from cortado.task.metric import first_floats
from cortado.task.overlap import mean_of_classes
from cortado.video.flow import Flow, flow_between, pictures_of
from cortado.video.warp import inside, warp

BATCH = 8


class Consistency(NamedTuple):
    """Temporal consistency, in %: the mean IoU pooled over all pairs of frames, and the share of pixels that agree."""

    iou: float
    agreement: float
    pairs: int


def consistency(network: nn.Module, frames: Data, flow: Flow, classes: int) -> Consistency:
    """Return how far a segmentation network's predictions follow the motion in a video.  Liu et al., 2020.

    >>> found = consistency(network, Data(video, masks, prepare), Dis(), classes=11)

    `frames` are consecutive pictures; the flow sees them as they are stored, the network after `prepare`. Its logits (N, at
    least `classes`, h, w) are brought to the pictures' size. The prediction of each frame is carried to the next one by the
    nearest pixel and compared there with that frame's own prediction. Places that come from outside the picture do not count,
    nor do predictions of `classes` and above, such as void. A class counts if it is predicted anywhere; what is always the same
    has 100 %, so look at the score on labels too. Raises BadTask for fewer than two frames, and for other frames and outputs.
    """
    return label_consistency(predicted_labels(network, frames), flows_in_order(frames, flow), classes)


def label_consistency(labels: Tensor, flows: Tensor, classes: int) -> Consistency:
    """Return the consistency of label maps (T, H, W), whole numbers, along flows (T - 1, 2, H, W) to the frame before."""
    pairs = [
        pair_overlaps(labels[number - 1 : number], labels[number : number + 1], flows[number - 1 : number], classes)
        for number in range(1, len(labels))
    ]
    common, either = torch.cat(pairs).double().sum(0).chunk(2)
    # A place is in the union of one class where both agree, else in those of two.
    agreed = common.sum() / ((either.sum() + common.sum()) / 2).clamp(min=1)
    return Consistency(100 * float(mean_of_classes(torch.cat([common, either]))), 100 * float(agreed), len(pairs))


def pair_overlaps(earlier: Tensor, later: Tensor, flow: Tensor, classes: int) -> Tensor:
    """Return for each pair of label maps (N, H, W) the pixels of intersection and of union by class, (N, 2 x `classes`)."""
    carried = warp(earlier.long(), flow)
    counted = inside(flow) & (carried < classes) & (later < classes)
    cells = torch.where(counted, carried * classes + later.long(), classes * classes).flatten(1)
    tables = [torch.bincount(one, minlength=classes * classes + 1)[:-1].view(classes, classes) for one in cells]
    counts = torch.stack(tables)
    common = counts.diagonal(dim1=1, dim2=2)
    return torch.cat([common, counts.sum(1) + counts.sum(2) - common], 1)


def predicted_labels(network: nn.Module, frames: Data) -> Tensor:
    """Return the class of each pixel of each frame, int16 (T, H, W), at the pictures' size.

    Raises BadTask for outputs that are no maps of logits, BadNetwork where the network cannot take the frames.
    """
    device, found = own_device(network), []
    with eval_mode(network):
        pictures = (pictures_of(inputs) for inputs, _ in frames.original().raw_batches(BATCH, None))
        for picture, (inputs, _) in zip(pictures, frames.original().batches(BATCH), strict=True):
            logits = first_floats(run(network, to_device(inputs, device)))
            found.append(as_labels(logits, picture.shape[2:]).cpu())
    return torch.cat(found)


def as_labels(logits: Any, size: Sequence[int]) -> Tensor:
    """Return the class of each place of logits (N, C, h, w), int16 (N, *size).  Raises BadTask for other outputs."""
    if not isinstance(logits, Tensor) or logits.dim() != 4:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise BadTask(f"video: consistency needs maps of logits (N, C, H, W), got {got}. Use a segmentation network.")
    whole = functional.interpolate(logits, size=tuple(size), mode="bilinear") if logits.shape[2:] != size else logits
    return whole.argmax(1).to(torch.int16)


def flows_in_order(frames: Data, flow: Flow) -> Tensor:
    """Return the flow of each frame but the first to the one before, float32 (T - 1, 2, H, W).  Raises BadTask."""
    if len(frames) < 2:
        raise BadTask(f"video: there is no motion in {len(frames)} frame. Pass at least two consecutive frames.")
    return torch.cat([flow_between(flow, later, earlier) for later, earlier in neighbours(frames)])


def neighbours(frames: Data) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of stored frames with the frames before them."""
    last: Tensor | None = None
    for pictures, _ in frames.original().raw_batches(BATCH, None):
        whole = pictures_of(pictures) if last is None else torch.cat([last, pictures_of(pictures)])
        if len(whole) > 1:
            yield whole[1:], whole[:-1]
        last = whole[-1:]
