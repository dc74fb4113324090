"""Augmentations of training images, computed for a whole batch at once with a given generator."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadTask
from cortado.running.trees import concatenated
from cortado.task.data import Data


def shift_crop_flip(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Pad each image (N, C, H, W) with zeros, crop H x W at a random place, mirror half of them.

    The usual augmentation for CIFAR.  Zero is the mean colour of normalised images.  He et al., 2015, section 4.2.
    """
    count, channels, height, width = images.shape
    padded_width = width + 2 * padding
    padded = functional.pad(images, (padding,) * 4).view(count, channels, -1)
    down, right = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    along = torch.arange(width)
    columns = torch.where(mirrored, width - 1 - along, along) + right
    rows = torch.arange(height) + down
    # One gather shifts, crops and mirrors at once, with the same indices for all channels.
    places = (rows[:, :, None] * padded_width + columns[:, None, :]).view(count, 1, -1)
    places = places.to(images.device).expand(count, channels, -1)
    return padded.gather(2, places).view_as(images)


def affine(
    images: Tensor,
    generator: torch.Generator,
    degrees: float = 11.0,
    scale: float = 0.10,
    shear: float = 0.15,
    shift: float = 1.8,
    background: float = 0.0,
) -> Tensor:
    """Rotate, scale, shear and shift each float image (N, C, H, W) at random, with bilinear sampling.

    All amounts are uniform: rotation in +-`degrees`, scale in 1 +- `scale`, horizontal shear in +-`shear` (pixels per
    pixel), shift in +-`shift` pixels in both directions. `background` fills the border.
    """
    count, _, height, width = images.shape
    draws = 2 * torch.rand(5, count, generator=generator) - 1
    angle, slant = draws[0] * math.radians(degrees), draws[2] * shear
    zoom = 1 / (1 + draws[1] * scale)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    # Rows of the map from output to input positions, in grid_sample's units: the image spans -1..1 in each direction.
    # A pixel is 2 / width wide and 2 / height high, so terms that mix directions contain the aspect ratio.
    ratio = height / width
    across = torch.stack([cos, (slant * cos - sin) * ratio, draws[3] * (2 * shift / width)], 1)
    down = torch.stack([sin / ratio, slant * sin + cos, draws[4] * (2 * shift / height)], 1)
    maps = torch.stack([across, down], 1).to(images)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    # grid_sample pads with zeros, so shift the background to zero for the call.
    moved = functional.grid_sample(images - background, grid, padding_mode="zeros", align_corners=False)
    return moved.add_(background)


def stored_copies(
    data: Data,
    count: int,
    generator: torch.Generator,
    vary: Callable[[Tensor, torch.Generator], Tensor] = affine,
    chunk: int = 512,
) -> Data:
    """Return `data` followed by `count` augmented copies, computed once and stored as uint8: as fast as plain data later.

    `vary(images, generator)` gets the raw pixels as float32 0..255, `chunk` images at a time to limit memory, and its
    result is rounded. `prepare` stays; `augment` is dropped. Raises BadTask if the inputs are not uint8 images
    (N, C, H, W) or `count` is negative.
    """
    if not isinstance(data.inputs, Tensor) or data.inputs.dtype != torch.uint8 or data.inputs.dim() != 4:
        raise BadTask("task: stored copies need uint8 images of shape (N, C, H, W). Use augment for other inputs.")
    if count < 0:
        raise BadTask(f"task: the number of stored copies must be at least 0, got {count}.")
    total = len(data)
    images = data.inputs.new_empty((total * (1 + count), *data.inputs.shape[1:]))
    images[:total] = data.inputs
    for copy in range(1, count + 1):
        for start in range(0, total, chunk):
            raw = data.inputs[start : start + chunk].float()
            varied = vary(raw, generator).round_().clamp_(0, 255)
            images[copy * total + start : copy * total + start + len(raw)] = varied.to(torch.uint8)
    return Data(images, concatenated([data.targets] * (1 + count)), data.prepare)


def vary_colours(
    images: Tensor,
    generator: torch.Generator,
    contrast: float = 0.2,
    brightness: float = 0.12,
    saturation: float = 0.3,
    tint: float = 0.07,
    span: float = 2.0,
) -> Tensor:
    """Vary contrast, saturation, tint and brightness of each float image (N, 3, H, W) at random.

    All amounts are uniform: contrast about the image's mean in 1 +- `contrast`, distance from grey in 1 +- `saturation`, each
    colour in 1 +- `tint`, brightness in +-`brightness` of half the `span` of values from black to white, which is centred on 0.
    """
    count = len(images)
    draws = (2 * torch.rand(6, count, 1, 1, 1, generator=generator) - 1).to(images)
    middle = images.mean((1, 2, 3), keepdim=True)
    images = (images - middle) * (1 + contrast * draws[0]) + middle + brightness * span / 2 * draws[1]
    tints = torch.cat(list(1 + tint * draws[2:5]), 1)
    images = (images + span / 2) * tints - span / 2
    grey = images.mean(1, keepdim=True)
    return (grey + (images - grey) * (1 + saturation * draws[5])).clamp(-span / 2, span / 2)
