"""Convolutions and transposed convolutions in one, two and three dimensions."""

from torch import nn

from cortado.layers.kind import Axes, Kind

SIZES = ("in_channels", "out_channels", "groups")
SETTINGS = ("kernel_size", "stride", "padding", "dilation", "bias", "padding_mode")


def conv_axes(layer: nn.Conv2d) -> dict[str, Axes]:
    """Return the axes of the weight (out, in / groups, kernel ...) and bias (out)."""
    return {"weight": Axes(output=0, inputs=(1,), groups=layer.groups), "bias": Axes(output=0)}


def transposed_axes(layer: nn.ConvTranspose2d) -> dict[str, Axes]:
    """Return the axes of the weight (in, out / groups, kernel ...) and bias (out)."""
    return {"weight": Axes(output=1, inputs=(0,), groups=layer.groups), "bias": Axes(output=0)}


KINDS = (
    *(Kind("conv", kind, SIZES, SETTINGS, conv_axes) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
    *(
        Kind("conv", kind, SIZES, (*SETTINGS, "output_padding"), transposed_axes)
        for kind in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    ),
)
