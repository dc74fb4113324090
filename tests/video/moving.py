"""Pictures that move by whole pixels, and the flow that says so."""

import torch
from torch import Tensor
from torch.nn import functional


def smooth_pictures(count: int, side: int = 64, seed: int = 0) -> Tensor:
    """Pictures of soft spots, uint8 (N, 3, side, side)."""
    noise = torch.rand(count, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(seed))
    return (255 * functional.interpolate(noise, size=side, mode="bicubic").clamp(0, 1)).to(torch.uint8)


def shifted(pictures: Tensor, right: int, down: int) -> Tensor:
    """The pictures moved, around the edge."""
    return pictures.roll((down, right), (-2, -1))


def video_of(picture: Tensor, count: int, right: int, down: int) -> Tensor:
    """Frames of one picture (C, H, W) that moves by as much from frame to frame."""
    return torch.stack([shifted(picture, right * number, down * number) for number in range(count)])


class Steady:
    """The flow of everything moving right and down by so many pixels since the frame before."""

    def __init__(self, right: float, down: float) -> None:
        self.shift = torch.tensor([-right, -down], dtype=torch.float32).view(1, 2, 1, 1)

    def __call__(self, later: Tensor, earlier: Tensor) -> Tensor:
        return self.shift.expand(len(later), 2, *later.shape[2:]).clone()
