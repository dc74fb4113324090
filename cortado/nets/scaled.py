"""Scaled: what networks of several widths, depths, resolutions and strides share."""

import math

from torch import Tensor
from torch.nn import functional

from cortado.errors import BadValue

STEP = 8
"""Channel counts of scaled networks are multiples of this."""
STRIDES = (32, 16, 8, 4, 2, 1)


def channels_at(channels: float, width: float) -> int:
    """Return a channel count times a width, to the nearest multiple of 8, but at most a tenth below.  Sandler et al., 2018."""
    wanted = channels * width
    found = max(STEP, int(wanted + STEP / 2) // STEP * STEP)
    return found + STEP if found < 0.9 * wanted else found


def repeats_at(repeats: int, depth: float) -> int:
    """Return a number of blocks times a depth, rounded up."""
    return math.ceil(round(repeats * depth, 6))


def strides_at(strides: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """Return strides whose product is `stride`: the first ones become 1, so that small pictures keep their places."""
    total, found = math.prod(strides), []
    for one in strides:
        skip = total > stride and one > 1
        total //= one if skip else 1
        found.append(1 if skip else one)
    return tuple(found)


def check_scale(name: str, width: float, depth: float, resolution: int | None, stride: int) -> None:
    """Raise BadValue for a scale of no network."""
    if not (width > 0 and depth > 0) or (resolution is not None and resolution < 8) or stride not in STRIDES:
        raise BadValue(
            f"{name}: width and depth must be above 0, resolution 8 or more, and stride one of "
            f"{', '.join(map(str, STRIDES))}, got {width}, {depth}, {resolution} and {stride}."
        )


def at_resolution(images: Tensor, resolution: int | None) -> Tensor:
    """Return images (N, C, H, W) at a resolution; as they are without one, or where they have it."""
    if resolution is None or tuple(images.shape[2:]) == (resolution, resolution):
        return images
    return functional.interpolate(images, (resolution, resolution), mode="bilinear", align_corners=False)
