"""Fold: merge a batch norm into the convolution, linear layer or transposed convolution before it."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.kinds import is_transposed, kind_of, role_of
from cortado.layers.norm import is_batch_norm
from cortado.layers.roles import MATMUL, NORM
from cortado.network.graph.graph import Graph
from cortado.network.graph.trace import trace
from cortado.parts.forms.attach import attached_names


def fold_norms(network: nn.Module, example: Any, difference: Collection[str] = ()) -> tuple[str, ...]:
    """Fold batch norms in place and return the paths of those folded; layers at `difference` absorb none.

    A norm in eval mode is folded if it reads only outputs of layers of the kinds that can and is the only reader of all their
    outputs: each of them absorbs the norm, however often they run.  Such a layer gets new parameters, so layers that
    shared its old weight keep theirs.  An nn.Identity replaces the norm.  A layer with a form attached is skipped:
    `lowered` makes a dense copy first. Raises BadNetwork when the network fails on the example.
    """
    graph = trace(network, example)
    makers = {
        value: layer
        for path, layer in network.named_modules()
        if can_absorb(layer) and path not in difference
        for value in graph.made_by(layer)
    }
    folded = []
    for path, norm in list(network.named_modules()):
        if not can_be_folded(norm, graph):
            continue
        before = [makers.get(value) for call in graph.calls_of(norm) for value in call.reads]
        if all(maker is not None and can_absorb_norm(maker, norm, graph) for maker in before):
            for maker in {id(maker): maker for maker in before}.values():
                absorb(maker, norm)
            put_in_place_of(network, norm, nn.Identity())
            folded.append(path)
    return tuple(folded)


def can_absorb(layer: nn.Module) -> bool:
    """Return whether it is a torch layer with its own forward; a subclass may compute anything."""
    return role_of(layer) == MATMUL and not attached_names(layer) and untouched(layer)


def can_be_folded(norm: nn.Module, graph: Graph) -> bool:
    """Return whether a norm uses fixed statistics, runs, and has parameters that nothing else reads."""
    # A subclass with its own forward may do more than normalize.
    fixed = is_batch_norm(norm) and not norm.training and role_of(norm) == NORM
    return fixed and untouched(norm) and bool(graph.calls_of(norm)) and graph.keeps_to_itself(norm)


def can_absorb_norm(maker: nn.Module, norm: nn.Module, graph: Graph) -> bool:
    """Return whether this norm alone reads all outputs of the maker, with their channels on axis 1."""
    kind = kind_of(maker)
    axes = 2 if kind is None else 2 + kind.spatial
    return graph.keeps_to_itself(maker) and all(
        len(shape) == axes and graph.read_only_by(value, norm)
        for call in graph.calls_of(maker)
        for value, shape in zip(call.makes, call.outputs, strict=True)
    )


def absorb(maker: Any, norm: Any) -> None:
    """Give the maker the weight and bias that compute maker and norm together."""
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var.double() + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        shift = -norm.running_mean.double() * scale
        if norm.bias is not None:
            shift = shift + norm.bias.double()
        weight, bias = maker.weight, maker.bias
        new_bias = shift if bias is None else shift + bias.double() * scale
        new_weight = scaled(weight.double(), scale, maker)
    maker.weight = nn.Parameter(new_weight.to(weight.dtype), requires_grad=weight.requires_grad)
    maker.bias = nn.Parameter(new_bias.to(weight.dtype), requires_grad=weight.requires_grad)


def scaled(weight: Tensor, scale: Tensor, maker: Any) -> Tensor:
    """Return the weight with every output channel multiplied by its entry of `scale` (outputs,)."""
    if not is_transposed(maker):
        return weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    # (inputs, outputs per group, ...): the inputs of group g make its outputs.
    grouped = weight.unflatten(0, (maker.groups, -1))
    return (grouped * scale.view(maker.groups, 1, -1, *(1,) * (weight.dim() - 2))).flatten(0, 1)


def put_in_place_of(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace `old` by `new` wherever it is registered in the network."""
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = new


def untouched(layer: nn.Module) -> bool:
    """Return whether a layer runs its class's own forward, without hooks that might see or change its activations."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    return not any(hooks) and "forward" not in layer.__dict__ and torch.nn.Module.__call__ is type(layer).__call__
