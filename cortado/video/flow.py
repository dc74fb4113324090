"""Flow: where each pixel of a frame was in an earlier frame."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortado.errors import BadTask, BadValue, MissingPackage, in_own_code

Flow = Callable[[Tensor, Tensor], Tensor]
"""(later, earlier) -> (N, 2, H, W) float32, the backward flow in pixels, x (to the right) then y (down).

Both frames are (N, 3, H, W), red first, uint8 or floats 0..255. The pixel (x, y) of the later frame was at
(x + flow[0], y + flow[1]) in the earlier one. Any function of this kind will do, such as a flow network.
"""
PRESETS = ("ultrafast", "fast", "medium")
LEAST_SIDE = 16


@dataclass(frozen=True)
class Dis:
    """Dense inverse search on grey pictures, by OpenCV: a flow that needs no network.  Kroeger et al., 2016.

    >>> flow = Dis("medium")(frames[1:], frames[:-1])

    `preset` is ultrafast, fast or medium, from 2 to 18 ms a pair of 480 x 360 pixels on one core. Raises BadValue for another
    preset and for frames that are no pictures of at least 16 x 16 pixels, MissingPackage without OpenCV.
    """

    preset: str = "medium"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise BadValue(
                f"video: preset must be one of {', '.join(PRESETS)}, got {self.preset!r}. Write Dis('medium')."
            )

    def __call__(self, later: Tensor, earlier: Tensor) -> Tensor:
        check_frames(later, earlier)
        try:
            import cv2
        except ImportError as error:
            raise MissingPackage(
                "video: Dis needs OpenCV: pip install -e '.[video]' in Cortado's folder installs it; or pass a flow of your own."
            ) from error
        search: Any = cv2.DISOpticalFlow.create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{self.preset.upper()}"))
        pictures = [
            [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in as_pictures(frames)] for frames in (later, earlier)
        ]
        found = [search.calc(grey, before, None) for grey, before in zip(*pictures, strict=True)]
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(later.device).contiguous()


def as_pictures(frames: Tensor) -> np.ndarray:
    """Return frames as uint8 (N, H, W, 3)."""
    whole = frames if frames.dtype == torch.uint8 else frames.float().round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(whole.permute(0, 2, 3, 1).cpu().numpy())


def pictures_of(inputs: Any) -> Tensor:
    """Return the stored inputs of data as pictures (N, 3, H, W).  Raises BadTask for anything else."""
    if not isinstance(inputs, Tensor) or inputs.dim() != 4 or inputs.shape[1] != 3:
        got = f"shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise BadTask(
            f"video: frames must be one tensor of raw pictures (N, 3, H, W), got {got}. Pass Data(pictures, ...)."
        )
    return inputs


def check_frames(later: Tensor, earlier: Tensor) -> None:
    """Raise BadValue unless both are pictures (N, 3, H, W) of the same size."""
    fits = later.dim() == 4 and later.shape[1] == 3 and min(later.shape[2:]) >= LEAST_SIDE
    if not fits or later.shape != earlier.shape:
        raise BadValue(
            f"video: a flow needs two batches of frames (N, 3, H, W) with sides of at least {LEAST_SIDE} pixels, got "
            f"{tuple(later.shape)} and {tuple(earlier.shape)}. Pass raw pictures, red first."
        )


def flow_between(flow: Flow, later: Tensor, earlier: Tensor) -> Tensor:
    """Return the flow of a function, float32 (N, 2, H, W).  Raises BadTask where it fails or gives another shape."""
    with in_own_code(BadTask, "video: the flow", "It gets two batches of frames (N, 3, H, W), red first, 0..255."):
        found = flow(later, earlier)
    wanted = (len(later), 2, *later.shape[2:])
    if not isinstance(found, Tensor) or tuple(found.shape) != wanted or not bool(found.isfinite().all()):
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise BadTask(
            f"video: the flow must give finite numbers {wanted}, pixels in x and y, got {got}. Correct the function."
        )
    return found.float()
