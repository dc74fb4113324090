"""Normalization layers: their scale, shift and statistics have the channels that they normalize."""

from typing import Any

from torch import nn

from cortado.layers.kind import Axes, Kind, first_shape, groups_left
from cortado.layers.roles import NORM
from cortado.parts.blocks.scale_shift import ScaleShift

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
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


def follow_channel_norm(layer: Any) -> None:
    """Read the scale, shift or statistics, one number per channel."""
    shape = first_shape(layer, "weight", "bias", "running_mean")
    if shape is not None:
        layer.num_features = shape[0]


def follow_group_norm(layer: nn.GroupNorm) -> None:
    """Read the scale, one number per channel."""
    shape = first_shape(layer, "weight", "bias")
    if shape is not None:
        layer.num_groups = groups_left(layer.num_groups, layer.num_channels, shape[0])
        layer.num_channels = shape[0]


def follow_layer_norm(layer: Any) -> None:
    """Read the scale or shift, which have the normalized shape."""
    shape = first_shape(layer, "weight", "bias")
    if shape is not None:
        layer.normalized_shape = tuple(shape)


def batch_norm_class(layer: nn.Module | None) -> type[nn.Module] | None:
    """Return the class of torch's batch norms that a layer is of, or None."""
    return next((kind for kind in (*BATCH_NORMS, nn.SyncBatchNorm) if isinstance(layer, kind)), None)


def is_batch_norm(layer: Any) -> bool:
    """Return whether a layer is a batch norm with stored statistics."""
    return batch_norm_class(layer) is not None and layer._buffers.get("running_mean") is not None


KINDS = (
    *(
        Kind("norm", kind, ("num_features",), RUNNING, channel_axes, follow_channel_norm, NORM)
        for kind in (*BATCH_NORMS, nn.SyncBatchNorm)
    ),
    *(
        Kind("norm", kind, ("num_features",), RUNNING, channel_axes, follow_channel_norm)
        for kind in INSTANCE_NORMS
    ),
    Kind("norm", ScaleShift, ("num_features",), ("axes",), channel_axes, follow_channel_norm, NORM),
    Kind(
        "norm", nn.LayerNorm, ("normalized_shape",), ("eps", "elementwise_affine", "bias"), layer_norm_axes,
        follow_layer_norm,
    ),
    Kind("norm", nn.RMSNorm, ("normalized_shape",), ("eps", "elementwise_affine"), layer_norm_axes, follow_layer_norm),
    Kind("norm", nn.GroupNorm, ("num_groups", "num_channels"), ("eps", "affine"), group_axes, follow_group_norm),
)  # fmt: skip
