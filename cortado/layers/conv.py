"""Convolutions and transposed convolutions in one, two and three dimensions."""

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.layers.kind import Axes, Kind, groups_left, shape_of
from cortado.layers.roles import MATMUL

SIZES = ("in_channels", "out_channels", "groups")
SETTINGS = ("kernel_size", "stride", "padding", "dilation", "bias", "padding_mode")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def convolution_class(spatial: int, transposed: bool = False) -> type[nn.Module]:
    """Return torch's class of convolutions over so many axes."""
    return (TRANSPOSED if transposed else CONVOLUTIONS)[spatial - 1]


def conv_axes(layer: nn.Conv2d) -> dict[str, Axes]:
    """Return the axes of the weight (out, in / groups, kernel ...) and bias (out)."""
    return {"weight": Axes(output=0, inputs=(1,), groups=layer.groups), "bias": Axes(output=0)}


def transposed_axes(layer: nn.ConvTranspose2d) -> dict[str, Axes]:
    """Return the axes of the weight (in, out / groups, kernel ...) and bias (out)."""
    return {"weight": Axes(output=1, inputs=(0,), groups=layer.groups), "bias": Axes(output=0)}


def follow_convolution(layer: Any) -> None:
    """Read the weight (out, in / groups, kernel ...)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.groups = groups_left(layer.groups, layer.out_channels, shape[0])
        layer.out_channels, layer.in_channels = shape[0], shape[1] * layer.groups


def follow_transposed(layer: Any) -> None:
    """Read the weight (in, out / groups, kernel ...)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.groups = groups_left(layer.groups, layer.in_channels, shape[0])
        layer.in_channels, layer.out_channels = shape[0], shape[1] * layer.groups


def convolution_patches(layer: Any, activation: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the patches (im2col) at `count` random positions of each sample, padded ones included."""
    axes = len(layer.kernel_size)
    samples = activation if activation.dim() == axes + 2 else activation[None]
    pads = [side for sides in reversed(pads_of(layer)) for side in sides]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(samples, pads, mode=mode) if any(pads) else samples
    sizes = [
        (padded.shape[2 + axis] - layer.dilation[axis] * (layer.kernel_size[axis] - 1) - 1) // layer.stride[axis] + 1
        for axis in range(axes)
    ]
    chosen = torch.randperm(torch.Size(sizes).numel(), generator=generator)[:count]
    places = torch.unravel_index(chosen, sizes)
    taps = []
    for tap in product(*(range(size) for size in layer.kernel_size)):
        at = [places[axis] * layer.stride[axis] + tap[axis] * layer.dilation[axis] for axis in range(axes)]
        taps.append(padded[(slice(None), slice(None), *at)])
    return torch.stack(taps, -1).transpose(1, 2).flatten(2).flatten(0, 1)


def pads_of(layer: Any) -> list[tuple[int, int]]:
    """Return the zero padding before and after each axis."""
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size)
    if layer.padding == "same":
        wide = [step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(width // 2, width - width // 2) for width in wide]
    return [(width, width) for width in layer.padding]


KINDS = (
    *(
        Kind(
            "conv", kind, SIZES, SETTINGS, conv_axes, follow_convolution, MATMUL, spatial, patches=convolution_patches
        )
        for spatial, kind in enumerate(CONVOLUTIONS, 1)
    ),
    *(
        Kind(
            "conv", kind, SIZES, (*SETTINGS, "output_padding"), transposed_axes, follow_transposed, MATMUL, spatial, True
        )
        for spatial, kind in enumerate(TRANSPOSED, 1)
    ),
)  # fmt: skip
