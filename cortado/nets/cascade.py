"""Cascade: networks from fast to accurate; each sample continues until one of them is sure."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.nets.named import named_network
from cortado.parts.blocks.rows import FirstSure

ADAPTS = ("scale", "shift", "size")
"""What a member's mapping may hold besides the network: how its inputs are made from those of the cascade."""


class Adapter(nn.Module):
    """Inputs of one member from those of the cascade: resized to `size` pixels, then times `scale` plus `shift` per channel."""

    def __init__(self, scale: Any = 1.0, shift: Any = 0.0, size: int | None = None) -> None:
        """Raises BadValue for a size below 1, and for numbers that are not finite."""
        super().__init__()
        self.size = size
        self.scale: Tensor
        self.shift: Tensor
        for name, numbers in (("scale", scale), ("shift", shift)):
            value = torch.as_tensor(numbers, dtype=torch.float32)
            if not bool(torch.isfinite(value).all()) or value.dim() > 1:
                raise BadValue(f"cascade: {name} is a number, or one for each channel, got {numbers!r}.")
            self.register_buffer(name, value)
        if size is not None and size < 1:
            raise BadValue(f"cascade: size must be at least 1 pixel, got {size}.")

    def forward(self, inputs: Tensor) -> Tensor:
        """Return inputs (N, C, ...) for the member."""
        if self.size is not None:
            inputs = functional.interpolate(inputs, size=self.size, mode="bilinear", align_corners=False)
        return inputs * self.per_channel(self.scale, inputs) + self.per_channel(self.shift, inputs)

    def per_channel(self, numbers: Tensor, inputs: Tensor) -> Tensor:
        return numbers.reshape(-1, *[1] * (inputs.dim() - 2)) if numbers.dim() else numbers


class Cascade(nn.Module):
    """Members in order; the answer is that of the first one whose confidence is above its threshold, or of the last.

    Viola and Jones, 2001; of networks: Park et al., Big/LITTLE deep neural network, 2015. At first no sample leaves early.
    Inputs are one tensor (N, ...), answers logits (N, classes) from all.
    """

    def __init__(self, members: Sequence[nn.Module], adapters: Sequence[nn.Module], rule: str = "top") -> None:
        """Raises BadValue for less than two members, or another number of adapters."""
        super().__init__()
        if len(members) < 2 or len(adapters) != len(members):
            raise BadValue(
                f"cascade: it takes two members or more and an adapter for each, got {len(members)} and {len(adapters)}."
            )
        self.members, self.adapters = nn.ModuleList(members), nn.ModuleList(adapters)
        self.sure = FirstSure(len(members), rule)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (N, classes) logits."""
        pairs = zip(self.members, self.adapters, strict=True)
        return self.sure(*[member(adapter(inputs)) for member, adapter in pairs])


def cascade(members: Sequence[Any], rule: str = "top") -> Cascade:
    """Return a cascade of named networks, each a name, a maker, or {network: ..., options, weights, scale, shift, size}.

    >>> cascade([{"network": "resnet_20", "options": {"weights": True}}, {"network": "resnet_56", "options": {"weights": True}}])

    Raises BadRecipe and BadNetwork for what cannot be made, and what Cascade raises.
    """
    made = [member_of(one) for one in members]
    return Cascade([network for network, _ in made], [adapter for _, adapter in made], rule)


def member_of(named: Any) -> tuple[nn.Module, nn.Module]:
    """Return the network of a member and its adapter."""
    if isinstance(named, Mapping):
        adapts = {key: named[key] for key in ADAPTS if key in named}
        rest = {key: value for key, value in named.items() if key not in ADAPTS}
        return named_network(rest, "cascade"), Adapter(**adapts) if adapts else nn.Identity()
    network = named_network(named, "cascade")
    if isinstance(network, Cascade):
        raise BadNetwork("cascade: a member is a cascade itself. List its members instead.")
    return network, nn.Identity()
