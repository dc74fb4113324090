"""Normalization layers: their scale, shift and statistics have the channels that they normalize."""

from torch import nn

from cortado.layers.kind import Axes, Kind
from cortado.parts.blocks.scale_shift import ScaleShift

RUNNING = ("eps", "momentum", "affine", "track_running_stats")


def channel_axes(layer: nn.Module) -> dict[str, Axes]:
    """Return the axes of a norm whose tensors have one number per channel."""
    return {name: Axes(output=0) for name in ("weight", "bias", "running_mean", "running_var")}


def group_axes(layer: nn.GroupNorm) -> dict[str, Axes]:
    """Return the axes of scale and shift, one number per channel, in the layer's groups."""
    return {name: Axes(output=0, groups=layer.num_groups) for name in ("weight", "bias")}


def layer_norm_axes(layer: nn.LayerNorm) -> dict[str, Axes]:
    """Return the axes of scale and shift, which have the normalized shape; the last axis is the channel axis."""
    last = len(layer.normalized_shape) - 1
    return {name: Axes(output=last) for name in ("weight", "bias")}


KINDS = (
    *(
        Kind("norm", kind, ("num_features",), RUNNING, channel_axes)
        for kind in (
            nn.BatchNorm1d,
            nn.BatchNorm2d,
            nn.BatchNorm3d,
            nn.InstanceNorm1d,
            nn.InstanceNorm2d,
            nn.InstanceNorm3d,
        )
    ),
    Kind("norm", ScaleShift, ("num_features",), ("axes",), channel_axes),
    Kind("norm", nn.LayerNorm, ("normalized_shape",), ("eps", "elementwise_affine", "bias"), layer_norm_axes),
    Kind("norm", nn.GroupNorm, ("num_groups", "num_channels"), ("eps", "affine"), group_axes),
)
