"""Linear layers."""

from torch import nn

from cortado.layers.kind import Axes, Kind


def linear_axes(layer: nn.Linear) -> dict[str, Axes]:
    """Return the axes of the weight (out, in) and bias (out)."""
    return {"weight": Axes(output=0, inputs=(1,)), "bias": Axes(output=0)}


def bilinear_axes(layer: nn.Bilinear) -> dict[str, Axes]:
    """Return the axes of the weight (out, in1, in2) and bias (out)."""
    return {"weight": Axes(output=0, inputs=(1, 2)), "bias": Axes(output=0)}


KINDS = (
    Kind("linear", nn.Linear, ("in_features", "out_features"), ("bias",), linear_axes),
    Kind("linear", nn.Bilinear, ("in1_features", "in2_features", "out_features"), ("bias",), bilinear_axes),
)
