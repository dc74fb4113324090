"""Norms and pooling: batch, layer, instance and group norms, pooling and local response."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.nets.from_onnx.node import Made, Node, Rule
from cortado.nets.from_onnx.rules.products import layer_for, padding_before, window


def batch_norm_rule(node: Node) -> Made:
    if node.attribute("training_mode", 0) or sum(bool(one) for one in node.given.outputs) > 1:
        raise node.refuse("is in training mode", "Export the network in eval mode.")
    made: Any = layer_for("BatchNorm", max(1, node.rank() - 2), node)(
        node.shape(1)[0], float(node.attribute("epsilon", 1e-5)), device="meta"
    )
    made.weight, made.bias = node.parameter(1), node.parameter(2)
    made.running_mean, made.running_var = node.constant(3).clone(), node.constant(4).clone()
    made.num_batches_tracked = torch.tensor(0)
    return Made((made,), (node.value(0),))


def layer_norm_rule(node: Node) -> Made:
    axis = node.axis(-1)
    shape = node.shape()[axis:]
    made: Any = nn.LayerNorm(shape, float(node.attribute("epsilon", 1e-5)), bias=node.has(2), device="meta")
    if not node.value(1).fixed or tuple(node.shape(1)) != shape:
        raise node.refuse(
            "has a scale of another shape than its axes", "Export it as the operators that it is made of."
        )
    made.weight = node.parameter(1)
    if node.has(2):
        made.bias = node.parameter(2)
    return Made((made,), (node.value(0),))


def instance_norm(node: Node) -> Made:
    made: Any = layer_for("InstanceNorm", node.rank() - 2, node)(
        node.shape(1)[0], float(node.attribute("epsilon", 1e-5)), affine=True, device="meta"
    )
    made.weight, made.bias = node.parameter(1), node.parameter(2)
    return Made((made,), (node.value(0),))


def group_norm_rule(node: Node) -> Made:
    """Return a group norm with a scale a channel, as from opset 21 on; before, it was one a group."""
    groups, channels = int(node.attribute("num_groups")), node.shape()[1]
    made: Any = nn.GroupNorm(groups, channels, float(node.attribute("epsilon", 1e-5)), device="meta")

    def spread(values: Tensor) -> Tensor:
        return values if len(values) == channels else values.repeat_interleave(channels // groups)

    made.weight, made.bias = node.parameter(1, spread, "spread"), node.parameter(2, spread, "spread")
    return Made((made,), (node.value(0),))


def max_pool(node: Node) -> Made:
    kernel = [int(one) for one in node.attribute("kernel_shape")]
    strides, gaps, pads = window(node, kernel)
    if sum(bool(one) for one in node.given.outputs) > 1:
        raise node.refuse("returns places too", "Export the network without them.")
    inside = all(before == after <= width // 2 for (before, after), width in zip(pads, kernel, strict=True))
    made = layer_for("MaxPool", len(kernel), node)(
        kernel,
        strides,
        [before for before, _ in pads] if inside else 0,
        gaps,
        ceil_mode=bool(node.attribute("ceil_mode", 0)),
    )
    return Made((made,) if inside else (padding_before(pads, float("-inf")), made), (node.value(0),))


def average_pool(node: Node) -> Made:
    kernel = [int(one) for one in node.attribute("kernel_shape")]
    strides, gaps, pads = window(node, kernel)
    counted, ceil = bool(node.attribute("count_include_pad", 0)), bool(node.attribute("ceil_mode", 0))
    inside = all(before == after <= width // 2 for (before, after), width in zip(pads, kernel, strict=True))
    if any(gap != 1 for gap in gaps) or not (inside or (counted and not ceil)):
        raise node.refuse("averages over dilated or unevenly padded windows", "Pad in an operator of its own.")
    kind, settings = layer_for("AvgPool", len(kernel), node), {"ceil_mode": ceil, "count_include_pad": counted}
    if inside:
        return Made((kind(kernel, strides, [before for before, _ in pads], **settings),), (node.value(0),))
    return Made((padding_before(pads), kind(kernel, strides, 0, **settings)), (node.value(0),))


def global_pool(family: str) -> Rule:
    """Return the rule of a pooling over all places."""

    def rule(node: Node) -> Made:
        spatial = node.rank() - 2
        return Made((layer_for(family, spatial, node)((1,) * spatial if spatial > 1 else 1),), (node.value(0),))

    return rule


def local_response(node: Node) -> Made:
    size, alpha, beta = (
        int(node.attribute("size")),
        float(node.attribute("alpha", 1e-4)),
        float(node.attribute("beta", 0.75)),
    )
    return Made((nn.LocalResponseNorm(size, alpha, beta, float(node.attribute("bias", 1.0))),), (node.value(0),))


def lp_normalize(node: Node) -> Made:
    return node.applied(
        functional.normalize, [node.value(0)], p=float(node.attribute("p", 2)), dim=node.axis(-1), eps=0.0
    )


RULES: dict[str, Rule] = {
    "BatchNormalization": batch_norm_rule, "LayerNormalization": layer_norm_rule, "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm_rule, "MaxPool": max_pool, "AveragePool": average_pool,
    "GlobalAveragePool": global_pool("AdaptiveAvgPool"), "GlobalMaxPool": global_pool("AdaptiveMaxPool"),
    "LRN": local_response, "LpNormalization": lp_normalize,
}  # fmt: skip
