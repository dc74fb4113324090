"""Factors: a layer with a low-rank weight as layers that run its factors in sequence."""

import copy
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.low_rank import low_rank_of
from cortado.parts.activations.quantizer import INPUT, OUTPUT, put_quantizer, quantizer_at
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.form import Factors, Form
from cortado.parts.forms.low_rank import compose

Sizes = tuple[int, ...]


class Chain(nn.Sequential):
    """Layers that together make one linear or convolution layer; `weight` and `bias` read as that layer's."""

    outer_groups = 1

    @property
    def weight(self) -> Tensor:
        """Return the weight of the one layer, composed from all of them."""
        count = self.outer_groups
        weights = [(layer.weight, 1 if isinstance(layer, nn.Linear) else layer.groups) for layer in self]
        pairs: Any = reduce(lambda one, two: (compose(one[0], two[0], count, one[1], two[1]), count), weights)  # type: ignore
        return pairs[0]

    @property
    def bias(self) -> Tensor | None:
        return self[-1].bias  # type: ignore[return-value]


@dataclass(frozen=True)
class FactorWalk:
    """How a convolution moves over its input; a linear layer has no axes."""

    stride: Sizes = ()
    padding: Sizes | str = ()
    dilation: Sizes = ()
    groups: int = 1

    def split(self, last: Form) -> tuple["FactorWalk", "FactorWalk"]:
        """Return the walks of the first and the last factor: each takes the axes of its kernel.

        An axis that neither kernel has goes to the first factor, so that fewer positions remain for the last one.
        """
        mine = [size > 1 for size in last.shape[2:]]
        return self.on([not own for own in mine]), self.on(mine)

    def on(self, axes: list[bool]) -> "FactorWalk":
        def kept(sizes: Sizes, rest: int) -> Sizes:
            return tuple(size if own else rest for size, own in zip(sizes, axes, strict=True))

        padding = self.padding if isinstance(self.padding, str) else kept(self.padding, 0)
        return replace(self, stride=kept(self.stride, 1), padding=padding, dilation=kept(self.dilation, 1))


def chain_of(layer: nn.Module) -> Chain | None:
    """Return the layers that run `layer` as the factors of its low-rank weight; None when it cannot run so.

    They share the factors' parameters with the layer; forms inside factors hold the weights of the new layers.
    """
    factors = low_rank_of(layer)
    if factors is None:
        return None
    made = layers_of_factors(factors, walk_of(layer), type(layer))
    give_bias(layer, made[-1])
    chain = Chain(*made).train(layer.training)
    chain.outer_groups = factors.groups
    # Keep the quantizers of the layer's input and output.
    for side, end in ((INPUT, chain[0]), (OUTPUT, chain[-1])):
        activation = quantizer_at(layer, side)
        if activation is not None:
            put_quantizer(end, side, activation)
    return chain


def walk_of(layer: Any) -> FactorWalk:
    if isinstance(layer, nn.Linear):
        return FactorWalk()
    return FactorWalk(layer.stride, layer.padding, layer.dilation, layer.groups)


def factor_layers(form: Form, walk: FactorWalk, kind: type[nn.Module]) -> list[nn.Module]:
    """Return the layers for one form, nested factors included."""
    factors = form.factors()
    return [factor_layer(form, walk, kind)] if factors is None else layers_of_factors(factors, walk, kind)


def layers_of_factors(factors: Factors, walk: FactorWalk, kind: type[nn.Module]) -> list[nn.Module]:
    """Return the layers of the first factor, then those of the last one."""
    first, last = walk.split(factors.last)
    before = factor_layers(factors.first, replace(first, groups=factors.first_groups), kind)
    return before + factor_layers(factors.last, replace(last, groups=factors.last_groups), kind)


def factor_layer(form: Form, walk: FactorWalk, kind: type[nn.Module]) -> nn.Module:
    """Return one layer, without a bias, whose weight is `form`."""
    outputs, inputs = form.shape[:2]
    if issubclass(kind, nn.Linear):
        made: nn.Module = nn.Linear(inputs, outputs, bias=False, device="meta")
    else:
        conv: Any = next(one for one in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if issubclass(kind, one))
        made = conv(
            inputs * walk.groups, outputs, form.shape[2:], walk.stride, walk.padding, walk.dilation, walk.groups,
            bias=False, device="meta",
        )  # fmt: skip
    if form.only_floats:
        made._parameters["weight"] = next(form.parameters())
    else:
        attach(made, "weight", form)
    return made


def give_bias(layer: nn.Module, last: nn.Module) -> None:
    """Give the layer's bias to the last factor, in its form if it has one."""
    last._parameters["bias"] = layer._parameters.get("bias")
    attached = form_of(layer, "bias")
    if attached is not None:
        last._parameters["bias"] = nn.Parameter(torch.empty(attached.shape, device="meta"))
        attach(last, "bias", attached)


def has_factors(network: nn.Module) -> bool:
    """Return whether any layer of a network can run as its factors."""
    return any(low_rank_of(layer) is not None for layer in network.modules())


def factored_network(network: nn.Module) -> nn.Module:
    """Return a copy of a network in which low-rank layers, where possible, are replaced by their factor layers."""
    return with_chains(copy.deepcopy(network))


def factored_copy(network: nn.Module) -> nn.Module:
    """Return such a copy that shares the network's parameters and buffers: training one trains the other.

    Buffers that the copy replaces as it runs are replaced in the network too. Returns the network itself where
    nothing can run as factors.
    """
    if not has_factors(network):
        return network
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    duplicate = with_chains(copy.deepcopy(network, dict(shared)))
    owners = dict(network.named_modules())
    pairs = [(module, owners[path]) for path, module in duplicate.named_modules() if path in owners and module._buffers]
    duplicate.register_forward_hook(lambda *_: return_buffers(pairs))
    return duplicate


def return_buffers(pairs: list[tuple[nn.Module, nn.Module]]) -> None:
    """Give the second module of each pair the buffers of the first."""
    for module, owner in pairs:
        owner._buffers.update({name: value for name, value in module._buffers.items() if name in owner._buffers})


def with_chains(network: nn.Module) -> nn.Module:
    """Replace low-rank layers by chains, in place; a layer used in several places becomes one shared chain."""
    chains = {id(layer): chain_of(layer) for layer in network.modules()}
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            chain = chains.get(id(child))
            if chain is not None:
                parent._modules[name] = chain
    return chains.get(id(network)) or network
