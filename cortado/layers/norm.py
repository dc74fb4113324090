"""Normalization layers: their scale, shift and statistics follow the channels they normalize."""

from torch import nn

from cortado.layers.kind import Axes, Kind

RUNNING = ("eps", "momentum", "affine", "track_running_stats")


def channel_axes(layer: nn.Module) -> dict[str, Axes]:
    """Everything is one number a channel."""
    return {name: Axes(output=0) for name in ("weight", "bias", "running_mean", "running_var")}


def group_axes(layer: nn.GroupNorm) -> dict[str, Axes]:
    """Scale and shift, one number a channel, in the layer's groups."""
    return {name: Axes(output=0, groups=layer.num_groups) for name in ("weight", "bias")}


def layer_norm_axes(layer: nn.LayerNorm) -> dict[str, Axes]:
    """Scale and shift have the normalized shape; the last axis is that of the channels."""
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
    Kind("norm", nn.LayerNorm, ("normalized_shape",), ("eps", "elementwise_affine", "bias"), layer_norm_axes),
    Kind("norm", nn.GroupNorm, ("num_groups", "num_channels"), ("eps", "affine"), group_axes),
)
