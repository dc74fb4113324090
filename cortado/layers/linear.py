"""Linear layers."""

import torch
from torch import Tensor, nn

from cortado.layers.kind import Axes, Kind, shape_of
from cortado.layers.roles import MATMUL


def linear_axes(layer: nn.Linear) -> dict[str, Axes]:
    """Return the axes of the weight (out, in) and bias (out)."""
    return {"weight": Axes(output=0, inputs=(1,)), "bias": Axes(output=0)}


def bilinear_axes(layer: nn.Bilinear) -> dict[str, Axes]:
    """Return the axes of the weight (out, in1, in2) and bias (out)."""
    return {"weight": Axes(output=0, inputs=(1, 2)), "bias": Axes(output=0)}


def follow_linear(layer: nn.Linear) -> None:
    """Read the weight (out, in)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.out_features, layer.in_features = shape


def follow_bilinear(layer: nn.Bilinear) -> None:
    """Read the weight (out, in1, in2)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.out_features, layer.in1_features, layer.in2_features = shape


def whole_rows(layer: nn.Linear, activation: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return about `count` random rows of each sample."""
    rows = activation.reshape(-1, activation.shape[-1])
    most = count * activation.shape[0]
    return rows if len(rows) <= most else rows[torch.randperm(len(rows), generator=generator)[:most]]


LINEAR = ("in_features", "out_features")
BILINEAR = ("in1_features", "in2_features", "out_features")
KINDS = (
    Kind("linear", nn.Linear, LINEAR, ("bias",), linear_axes, follow_linear, MATMUL, patches=whole_rows),
    Kind("linear", nn.Bilinear, BILINEAR, ("bias",), bilinear_axes, follow_bilinear),
)
