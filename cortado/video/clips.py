"""Clips: frames of a video with the frames before them and the flow, as unlabelled data to learn from."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.video.flow import Flow, flow_between, pictures_of
from cortado.video.warp import visible

BATCH = 8
EARLIER, FLOW, VISIBLE, BEFORE = "earlier", "flow", "visible", "before"
"""The names of a clip's targets."""


class Clips(Dataset[Any]):
    """Items are a prepared frame (C, H, W) and a dict of what came before it; see `clips`."""

    def __init__(self, frames: Data, flow: Flow, step: int, length: int) -> None:
        """Compute all flows.  Raises BadTask."""
        self.frames, self.step, self.length = frames.original(), step, length
        self.first = step * (length - 1)
        if min(step, length - 1) < 1 or len(frames) <= self.first:
            raise BadTask(
                f"video: clips of {length} frames, {step} apart, need at least {self.first + 1} frames, a length of 2 and a step "
                f"of 1, got {len(frames)} frames. Pass consecutive frames of one video."
            )
        found = [self.followed(flow, start) for start in range(self.first, len(frames), BATCH)]
        self.flow, self.visible = (torch.cat(parts) for parts in zip(*found, strict=True))

    def followed(self, flow: Flow, start: int) -> tuple[Tensor, Tensor]:
        """Return the flows of a few frames and how far their pixels are visible before, in float16."""
        stop = min(start + BATCH, len(self.frames))
        backs = (0, self.step)
        later, earlier = (pictures_of(self.frames.pick(slice(start - back, stop - back)).inputs) for back in backs)
        found = flow_between(flow, later, earlier)
        return found.half(), visible(later, earlier, found).half()

    def __len__(self) -> int:
        return len(self.flow)

    def __getitem__(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        last = self.first + number
        wanted = torch.arange(last - self.first, last + 1, self.step)
        (prepared, _), *_ = self.frames.pick(wanted).batches(self.length)
        given = {EARLIER: prepared[-2], FLOW: self.flow[number], VISIBLE: self.visible[number]}
        return prepared[-1], given if self.length == 2 else given | {BEFORE: prepared[:-2]}


def clips(frames: Data, flow: Flow, step: int = 1, length: int = 2) -> Data:
    """Return each frame of a video with what came before it, as unlabelled data of a task.

    >>> task = Task(train, validation, test, unlabelled=clips(Data(video, prepare=prepare), Dis()))
    >>> Motion(data="unlabelled")

    `frames` are pictures in order, as they are stored uint8 or floats 0..255, red first, (T, 3, H, W). Inputs are prepared
    frames. Their targets are a dict: "earlier", the prepared frame `step` frames before; "flow" (2, H, W), from the frame to
    the earlier one, in pixels; "visible" (H, W), 0..1, how far each pixel can be followed; with a `length` above 2 also
    "before" (length - 2, C, H, W), the prepared frames before the earlier one in order of time, `step` apart. The flow is
    computed once and kept as float16. Neither augmented nor varied. Raises BadTask for too few frames, and for other frames.
    """
    return Data(Clips(frames, flow, step, length))
