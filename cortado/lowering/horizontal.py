"""Horizontal: merge layers that read one input (Fire, query, key and value) into one product and a split."""

from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx, nn

from cortado.lowering.graph import drop_unread, free_name, tensor_at
from cortado.network.graph.operators.convolution import EXPORTED

aten = torch.ops.aten
DEFAULTS: tuple[Any, ...] = (None, None, None, 1, 0, 1, 1)
"""Input, weight, bias, stride, padding, dilation, groups."""


def merge_siblings(network: fx.GraphModule) -> tuple[tuple[str, ...], ...]:
    """Merge siblings in place and return the names of each merged family.

    Siblings are linear layers, or convolutions without groups, that read the same tensor with the same kernel size,
    stride, padding and dilation.
    """
    families: dict[Any, list[fx.Node]] = {}
    for node in network.graph.nodes:
        key = sibling_key(network, node)
        if key is not None:
            families.setdefault(key, []).append(node)
    merged = []
    for family in (siblings for siblings in families.values() if len(siblings) > 1):
        merged.append(tuple(node.name for node in family))
        merge_family(network, family, free_name(network, "merged"))
    if merged:
        drop_unread(network)
    return tuple(merged)


def arguments(node: fx.Node) -> tuple[Any, ...]:
    """Return a convolution's seven arguments, with numbers expanded to all axes."""
    given = tuple(node.args) + DEFAULTS[len(node.args) :]
    axes = 1 + EXPORTED.index(node.target)  # type: ignore[arg-type]
    spread = [tuple(v) if isinstance(v, (list, tuple)) else (v,) for v in given[3:6]]
    return (*given[:3], *(v * axes if len(v) == 1 else v for v in spread), given[6])


def sibling_key(network: fx.GraphModule, node: fx.Node) -> Any:
    """Return a key that is equal for siblings; None for nodes that are not merged."""
    if node.op != "call_function" or node.kwargs:
        return None
    if node.target is aten.linear.default:
        weight = tensor_at(network, node.args[1])
        return (
            None
            if weight is None or not has_parameter_bias(network, node)
            else (node.target, node.args[0], weight.dtype)
        )
    if node.target not in EXPORTED:
        return None
    source, weight_node, _, stride, padding, dilation, groups = arguments(node)
    weight = tensor_at(network, weight_node)
    if weight is None or groups != 1 or not has_parameter_bias(network, node):
        return None
    return (node.target, source, weight.dtype, tuple(weight.shape[2:]), stride, padding, dilation)


def has_parameter_bias(network: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether the bias is absent or a parameter."""
    bias = node.args[2] if len(node.args) > 2 else None
    return bias is None or tensor_at(network, bias) is not None


def merge_family(network: fx.GraphModule, family: list[Any], name: str) -> None:
    """Replace the family by one node with all weights in order, and a split for the former outputs."""
    first = family[0]
    linear = first.target is aten.linear.default
    weights = [tensor_at(network, node.args[1]) for node in family]
    sizes = [weight.shape[0] for weight in weights if weight is not None]
    holder = nn.Module()
    holder.register_parameter("weight", frozen_parameter(torch.cat([w.detach() for w in weights if w is not None])))
    holder.register_parameter("bias", frozen_parameter(joined_bias(network, family, sizes)))
    network.add_submodule(name, holder)
    graph = network.graph
    with graph.inserting_before(first):
        weight_node, bias_node = graph.get_attr(f"{name}.weight"), graph.get_attr(f"{name}.bias")
        if linear:
            made = graph.call_function(first.target, (first.args[0], weight_node, bias_node))
        else:
            _, _, _, stride, padding, dilation, groups = arguments(first)
            settings = (list(stride), list(padding), list(dilation), groups)
            made = graph.call_function(first.target, (first.args[0], weight_node, bias_node, *settings))
        made.meta = dict(first.meta) | {"val": None}
        parts = graph.call_function(aten.split_with_sizes.default, (made, sizes, -1 if linear else 1))
        pieces = [graph.call_function(getitem, (parts, place)) for place in range(len(family))]
    for node, piece in zip(family, pieces, strict=True):
        piece.meta = dict(node.meta)
        node.replace_all_uses_with(piece)
        graph.erase_node(node)


def joined_bias(network: fx.GraphModule, family: list[fx.Node], sizes: list[int]) -> Tensor | None:
    """Return all biases in order, zeros for missing ones; None when all are missing."""
    biases = [tensor_at(network, node.args[2]) if len(node.args) > 2 else None for node in family]
    if all(bias is None for bias in biases):
        return None
    known = next(bias for bias in biases if bias is not None)
    filled = [known.new_zeros(n) if b is None else b.detach() for b, n in zip(biases, sizes, strict=True)]
    return torch.cat(filled)


def frozen_parameter(value: Tensor | None) -> nn.Parameter | None:
    """Return a parameter that is not trained."""
    return None if value is None else nn.Parameter(value.clone(), requires_grad=False)
