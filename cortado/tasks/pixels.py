"""Pixels: normalise bytes to floats, and check labelled image sets."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cortado.errors import BadTask


@dataclass(frozen=True)
class Normalise:
    """uint8 pixels (N, C, H, W) to float32 `(pixel / 255 - mean) / std`, with one mean and deviation per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        factor = torch.tensor([1 / (255 * std) for std in self.std], device=pixels.device).view(-1, 1, 1)
        offset = torch.tensor(self.black, device=pixels.device).view(-1, 1, 1)
        return pixels.float().mul_(factor).add_(offset)

    @property
    def black(self) -> tuple[float, ...]:
        """Return the normalised value of pixel 0, per channel."""
        return tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))


def checked_images(
    name: str, images: np.ndarray, labels: np.ndarray, shape: tuple[int, ...], classes: int
) -> tuple[Tensor, Tensor]:
    """Return images (N, *shape) as a tensor of their own dtype and labels (N,) as int64.

    Raises BadTask if the shapes disagree, a float is not finite, or a label is not in 0..classes-1.
    """
    if images.shape[1:] != shape:
        raise BadTask(f"task: images of {name} must have shape {shape}, got {images.shape[1:]}.")
    if labels.ndim != 1 or len(images) != len(labels):
        raise BadTask(
            f"task: {name} needs one label for each image, got {len(images)} images and labels of shape {labels.shape}."
        )
    if not len(images):
        raise BadTask(f"task: {name} is empty, got 0 images.")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        count = int((~np.isfinite(images)).sum())
        raise BadTask(f"task: images of {name} must be finite, got {count} values that are NaN or infinite.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise BadTask(f"task: labels of {name} must lie in 0..{classes - 1}, got {low if low < 0 else high}.")
    # Arrays over a file's bytes are read-only; torch needs writable memory.
    return torch.from_numpy(np.require(images, requirements=["C", "W"])), torch.from_numpy(labels.astype(np.int64))
