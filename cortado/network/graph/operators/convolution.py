"""Convolutions and transposed convolutions in one, two and three dimensions."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from cortado.layers.conv import convolution_class
from cortado.layers.roles import MATMUL
from cortado.network.graph.axes.constants import counted_constant
from cortado.network.graph.axes.step import Input, Step, Value, node_shape
from cortado.network.graph.axes.variables import Axis
from cortado.network.graph.operators.facts import known, layer_setting
from cortado.network.graph.record import Operator

EXPORTED = (torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default)
"""Those of an exported graph, by the number of their axes."""
DILATION = {"conv1d": 5, "conv2d": 5, "conv3d": 5, "conv_transpose1d": 7, "conv_transpose2d": 7, "conv_transpose3d": 7}
"""The index of the dilation among the arguments of torch's functions."""


def convolution(step: Step) -> Value:
    """Follow x (N, C, ...), weight (O, C / g, ...), bias (O); transposed: weight (C, O / g, ...).

    With g groups C is (group, inner) and O is (group, outer); a depthwise convolution has no inner.
    """
    x, weight, bias = step.tensor("input"), step.tensor("weight"), step.tensor("bias")
    assert x is not None and weight is not None
    transposed, groups = "transpose" in step.name, int(step.arg("groups", 1))
    batched = len(x) == len(weight)
    channel = 1 if batched else 0
    step.freeze(*x.axis_list[channel + 1 :])
    step.keep_whole(*weight.axis_list[2:])
    step.role(weight, 0, "consumer" if transposed else "producer")
    step.role(weight, 1, "producer" if transposed else "consumer")
    given = weight.axis_list[0] if transposed else weight.axis_list[1]
    made = weight.axis_list[1] if transposed else weight.axis_list[0]
    if groups > 1:
        given, made = grouped(step, x, weight, given, made, groups, transposed)
    step.join(x.axis_list[channel], given)
    if not weight.is_weight:
        step.absorbs(given)
    if bias is not None:
        step.join(made, bias.axis_list[0])
        step.lifts(*x.axis_list[:channel])
    return [*x.axis_list[:channel], made, *([None] * (len(weight) - 2))]


def grouped(
    step: Step, x: Input, weight: Input, given: Axis, made: Axis, groups: int, transposed: bool
) -> tuple[Axis, Axis]:
    """Return a grouped convolution's input and output channels as products of groups and inner channels."""
    variables = step.variables
    family = variables.fresh(groups)
    step.counts("groups", family)

    def times(inner: Axis, size: int) -> Axis:
        rows = np.repeat(family, size, 0)
        return rows if inner is None else np.concatenate([rows, np.tile(inner, (groups, 1))], 1)

    if transposed:
        outer = variables.resolve(weight.axis_list[1])
        inside = variables.fresh(len(given) // groups) if given is not None and len(given) > groups else None
        entering = times(inside, max(1, node_shape(weight.node)[0] // groups))
        step.join(given, entering)
        return entering, times(outer, node_shape(weight.node)[1])
    inner = variables.resolve(weight.axis_list[1])
    outer = variables.fresh(len(made) // groups) if made is not None and len(made) > groups else None
    leaving = times(outer, max(1, node_shape(weight.node)[0] // groups))
    step.join(made, leaving)
    return times(inner, node_shape(weight.node)[1]), leaving


def convolution_cost(operator: Operator) -> int:
    """Count aten.convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    activation, weight, transposed = operator.arguments[0], operator.arguments[1], bool(operator.arguments[6])
    # Each output of a convolution, or each input of a transposed one, is multiplied with weight[0] once.
    positions = activation if transposed else operator.outputs[0]
    return prod(positions) * prod(weight[1:])


def forward_cost(operator: Operator) -> int:
    """Count an operator that only convolves, never transposed: (input, weight, ...)."""
    return prod(operator.outputs[0]) * prod(operator.arguments[1][1:])


def convolution_layer(step: Step, shapes: Mapping[str, Any], owner: nn.Module | None) -> nn.Module:
    """Build a layer from weight (O, C / g, ...), or (C, O / g, ...) where it is transposed."""
    one, two, *kernel = shapes["weight"]
    groups, transposed = int(step.arg("groups")), "transpose" in step.name
    kind: Any = convolution_class(len(kernel), transposed)
    given, out = (one, two * groups) if transposed else (two * groups, one)
    settings = {name: layer_setting(step.arg(name)) for name in ("stride", "padding", "dilation")}
    settings |= {"output_padding": layer_setting(step.arg("output_padding"))} if transposed else {}
    return kind(given, out, tuple(kernel), groups=groups, bias="bias" in shapes, device="meta", **settings)


OPERATORS = (
    known("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", role=MATMUL, axes=convolution,
          constants=counted_constant, layer=convolution_layer)
    | known("convolution _convolution convolution_overrideable", role=MATMUL, axes=convolution, cost=convolution_cost,
            constants=counted_constant)
    | known("mkldnn_convolution _conv_depthwise2d", role=MATMUL, cost=forward_cost)
)  # fmt: skip
