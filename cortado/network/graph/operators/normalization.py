"""Normalizations: each channel, or each group of entries, by its mean and variance."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from cortado.layers.norm import batch_norm_class
from cortado.network.graph.axes.constants import Constant, counted_constant, sizes
from cortado.network.graph.axes.step import Step, Value
from cortado.network.graph.operators.facts import free, known, layer_setting


def batch_norm(step: Step) -> Value:
    """Follow axis 1, which has the parameters and statistics; batch statistics mix the other axes."""
    x = step.tensor("input")
    assert x is not None
    # What is zero in all tensors of its channel stays zero.
    step.lifts(*(axis for place, axis in enumerate(x.axis_list) if place != 1 or step.tensor("weight") is None))
    for name in ("weight", "bias", "running_mean", "running_var"):
        given = step.tensor(name)
        if given is not None:
            step.join(x.axis_list[1], given.axis_list[0])
    if step.arg("training") or step.arg("use_input_stats"):
        step.inexact(*x.axis_list[2:], *(x.axis_list[:1] if step.name == "batch_norm" else []))
    return x.axis_list


def layer_norm(step: Step) -> Value:
    """Follow the trailing axes, which have the parameters and where each entry affects the others."""
    x = step.tensor("input")
    assert x is not None
    count = len(step.arg("normalized_shape"))
    step.lifts(*x.axis_list)
    for name in ("weight", "bias"):
        given = step.tensor(name)
        if given is not None:
            for mine, theirs in zip(x.axis_list[-count:], given.axis_list, strict=True):
                if mine is not None or theirs is not None:
                    step.join(mine, theirs)
    step.inexact(*x.axis_list[-count:])
    return x.axis_list


def group_norm(step: Step) -> Value:
    """Follow axis 1 as (group, inner): whole groups can be cut; single channels affect the others of their group."""
    x, groups = step.tensor("input"), int(step.arg("num_groups"))
    assert x is not None
    channels = x.shape[1]
    step.lifts(*x.axis_list)
    for name in ("weight", "bias"):
        given = step.tensor(name)
        if given is not None:
            step.join(x.axis_list[1], given.axis_list[0])
    if groups == 1:
        step.inexact(x.axis_list[1])
    elif groups == channels:
        step.counts("num_groups", x.axis_list[1])
    elif groups < channels and x.axis_list[1] is not None:
        inner = step.variables.fresh(channels // groups)
        outer = step.variables.fresh(groups)
        step.counts("num_groups", outer)
        step.join(x.axis_list[1], np.concatenate([np.repeat(outer, len(inner), 0), np.tile(inner, (groups, 1))], 1))
        step.inexact(inner)
    return x.axis_list


def normalized_sizes(step: Step) -> list[Constant]:
    """Return the sizes of the trailing axes."""
    count = len(step.arg("normalized_shape"))
    return sizes(step, "normalized_shape", step.resolved(step.tensors()[0].axis_list)[-count:])


def batch_norm_layer(step: Step, shapes: Mapping[str, Any], owner: Any) -> nn.Module | None:
    """Build a layer only where torch has a batch norm layer: other code may freeze its statistics on purpose."""
    kind = batch_norm_class(owner)
    if kind is None or step.arg("training") or len(shapes) != 4:
        return None
    return kind(shapes["weight"][0], float(step.arg("eps")), owner.momentum, device="meta")


def layer_norm_layer(step: Step, shapes: Mapping[str, Any], owner: nn.Module | None) -> nn.Module:
    """Build a layer norm over the trailing axes."""
    shape = layer_setting(step.arg("normalized_shape"))
    return nn.LayerNorm(shape, float(step.arg("eps")), True, "bias" in shapes, device="meta")


def rms_norm_layer(step: Step, shapes: Mapping[str, Any], owner: nn.Module | None) -> nn.Module:
    """Build an RMS norm over the trailing axes."""
    return nn.RMSNorm(layer_setting(step.arg("normalized_shape")), step.arg("eps"), device="meta")


def group_norm_layer(step: Step, shapes: Mapping[str, Any], owner: nn.Module | None) -> nn.Module:
    """Build a norm over axis 1 in groups."""
    return nn.GroupNorm(int(step.arg("num_groups")), shapes["weight"][0], float(step.arg("eps")), device="meta")


OPERATORS = (
    known("batch_norm", axes=batch_norm, layer=batch_norm_layer)
    | known("instance_norm", axes=batch_norm)
    | known("_native_batch_norm_legit_no_training native_batch_norm", axes=batch_norm, cost=free)
    | known("_native_batch_norm_legit _batch_norm_no_update cudnn_batch_norm miopen_batch_norm", cost=free)
    | known("layer_norm", axes=layer_norm, constants=normalized_sizes, layer=layer_norm_layer)
    | known("rms_norm", axes=layer_norm, constants=normalized_sizes, layer=rms_norm_layer)
    | known("_fused_rms_norm native_layer_norm", axes=layer_norm, cost=free)
    | known("group_norm", axes=group_norm, constants=counted_constant, layer=group_norm_layer)
    | known("native_group_norm", axes=group_norm, constants=counted_constant, cost=free)
)
