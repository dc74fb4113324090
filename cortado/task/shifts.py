"""Shifts: test pictures as they may come in use (compressed, noisy, blurred, brighter), to see what a network loses there."""

import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cortado.task.data import Data

SAMPLES = 500
"""Test samples that are shifted at most."""
JPEG_QUALITY = 30
NOISE, BRIGHTER, SPREAD = 20.0, 40.0, 1.0
"""Standard deviation of the noise and summand of the brightness in steps of 255; standard deviation of the blur in pixels."""
Shift = Callable[[Tensor, torch.Generator], Tensor]
"""Pictures uint8 (N, C, H, W) to pictures of the same shape."""


def with_noise(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures with normal noise on every pixel."""
    noise = NOISE * torch.randn(pictures.shape, generator=generator)
    return (pictures.float() + noise).round().clamp(0, 255).to(torch.uint8)


def blurred(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures after a Gaussian filter of 5 x 5 pixels."""
    line = torch.exp(-0.5 * (torch.arange(-2, 3) / SPREAD) ** 2)
    kernel = (line[:, None] * line / line.sum() ** 2).expand(pictures.shape[1], 1, 5, 5)
    padded = functional.pad(pictures.float(), (2,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel, groups=pictures.shape[1]).round().to(torch.uint8)


def brighter(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return brighter pictures."""
    return (pictures.float() + BRIGHTER).clamp(0, 255).to(torch.uint8)


def as_jpeg(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures written as JPEG of low quality and read again."""
    from PIL import Image

    made = []
    for picture in pictures.permute(0, 2, 3, 1).numpy():
        stream = io.BytesIO()
        grey = picture.shape[2] == 1
        Image.fromarray(picture[..., 0] if grey else picture).save(stream, "JPEG", quality=JPEG_QUALITY)
        read = np.asarray(Image.open(stream))
        made.append(read[..., None] if grey else read)
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


SHIFTS: Mapping[str, Shift] = {"noise": with_noise, "blur": blurred, "brightness": brighter, "jpeg": as_jpeg}


def shifted_copies(data: Data, seed: int) -> dict[str, Data]:
    """Return the first samples of pictures in bytes, "as they are" and after each shift; nothing for other inputs.

    Hendrycks, Dietterich, 2019, shift test pictures in such ways. JPEG needs Pillow and is left out without it.
    """
    some = data.original().first(min(SAMPLES, len(data)))
    pictures = some.inputs
    if not isinstance(pictures, Tensor) or not is_pictures(pictures):
        return {}
    found = {"as they are": some}
    for number, (name, shift) in enumerate(SHIFTS.items()):
        try:
            inputs = shift(pictures, torch.Generator().manual_seed(1000 * seed + number))
        except ImportError:
            continue
        found[name] = Data(inputs, some.targets, some.prepare)
    return found


def is_pictures(inputs: Tensor) -> bool:
    """Return whether inputs are grey or colour pictures in bytes, (N, 1 or 3, H, W)."""
    return inputs.dtype == torch.uint8 and inputs.dim() == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) > 4
