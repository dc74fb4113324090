"""ActivationQuantizer: rounds a layer's input or output."""

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.parts.part import Part, is_container

INPUT, OUTPUT = "input", "output"
SIDES = (INPUT, OUTPUT)
PREFIX = "signal_"


class ActivationQuantizer(Part):
    """Rounds an activation; float arrays are Parameters, so training can change them.

    Every array (FLOATS or INTEGERS) is one number, a tensor of one entry; facts are 0 or more.
    """

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        return dict.fromkeys(cls.arrays, 1)

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """Return the rounded values, same shape; gradients pass where a small change of the input matters."""

    @abstractmethod
    def bits(self) -> int:
        """Return the bits per rounded value."""

    def ends(self) -> tuple[float, float] | None:
        """Return the smallest and the largest output; None where they depend on the sample or are unbounded."""
        return None

    def finalize(self) -> "ActivationQuantizer | None":
        """Return the quantizer that remains after training; None where nothing remains."""
        return self


def quantizer_at(layer: nn.Module, side: str) -> ActivationQuantizer | None:
    """Return the quantizer of a layer's input or output, or None."""
    return layer._modules.get(PREFIX + side)  # type: ignore[return-value]


Described = tuple[str, dict[str, int], list[list[float]]]
"""The class of a quantizer, its facts, and its numbers."""


def rounding_facts(quantizer: ActivationQuantizer) -> Described:
    """Return the class, facts and numbers of a quantizer: equal for two that round alike."""
    numbers = [part.flatten().tolist() for part in quantizer.parts().values()]
    return type(quantizer).__qualname__, quantizer.spec(), numbers


def put_quantizer(layer: nn.Module, side: str, quantizer: ActivationQuantizer) -> None:
    """Round the first input or the output of `layer`, replacing any quantizer there.

    Raises BadNetwork for a container that runs all its children: quantize the layer at its end instead.
    """
    if is_container(layer):
        raise BadNetwork(
            f"activations: {type(layer).__name__} runs every module it holds and cannot have a quantizer of its own. "
            "Round the output of its last layer or the input of its first one."
        )
    new = quantizer_at(layer, side) is None
    layer.add_module(PREFIX + side, quantizer)
    if new and side == INPUT:
        layer.register_forward_pre_hook(round_input, with_kwargs=True)
    elif new:
        layer.register_forward_hook(round_output)


def drop_quantizer(layer: nn.Module, side: str) -> None:
    """Remove the quantizer of a layer's input or output."""
    layer._modules.pop(PREFIX + side, None)
    hooks, flags = (
        (layer._forward_pre_hooks, layer._forward_pre_hooks_with_kwargs)
        if side == INPUT
        else (layer._forward_hooks, layer._forward_hooks_with_kwargs)
    )
    for key in [key for key, hook in hooks.items() if hook in (round_input, round_output)]:
        del hooks[key]
        flags.pop(key, None)


def round_input(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Round the first argument, positional or keyword (a forward pre-hook)."""
    quantizer = quantizer_at(layer, INPUT)
    if quantizer is None:
        return None
    if given and isinstance(given[0], Tensor) and given[0].is_floating_point():
        return (rounded_values(quantizer, given[0]), *given[1:]), named
    first = next((key for key, value in named.items() if isinstance(value, Tensor)), None)
    return (
        (given, {**named, first: rounded_values(quantizer, named[first])}) if not given and first is not None else None
    )


def round_output(layer: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
    """Round an output that is a single tensor (a forward hook)."""
    quantizer = quantizer_at(layer, OUTPUT)
    return None if quantizer is None or not isinstance(output, Tensor) else rounded_values(quantizer, output)


def rounded_values(quantizer: ActivationQuantizer, values: Tensor) -> Tensor:
    """Return the rounded values; torch's fused attention passes samples of different lengths as one nested tensor."""
    if values.layout == torch.strided and values.is_nested:
        return torch.nested.as_nested_tensor([quantizer(sample[None])[0] for sample in values.unbind()])
    return quantizer(values)


def sites(network: nn.Module) -> dict[tuple[str, str], ActivationQuantizer]:
    """Return every quantizer of a network by (layer path, side), in module order."""
    found = ((path, layer, side) for path, layer in network.named_modules() for side in SIDES)
    return {
        (path, side): quantizer for path, layer, side in found if (quantizer := quantizer_at(layer, side)) is not None
    }


def take_quantizers(network: nn.Module) -> dict[tuple[str, str], ActivationQuantizer]:
    """Remove every quantizer of a network, hooks included, and return them for `give_quantizers`."""
    found, modules = sites(network), dict(network.named_modules())
    for path, side in found:
        drop_quantizer(modules[path], side)
    return found


def give_quantizers(network: nn.Module, quantizers: dict[tuple[str, str], ActivationQuantizer]) -> None:
    """Attach quantizers to the layers that are now at their paths."""
    modules = dict(network.named_modules())
    for (path, side), quantizer in quantizers.items():
        put_quantizer(modules[path], side, quantizer)


@contextlib.contextmanager
def unrounded(network: nn.Module) -> Iterator[None]:
    """Disable every activation quantizer inside the `with` block."""
    found = [(layer, side, quantizer_at(layer, side)) for layer in network.modules() for side in SIDES]
    try:
        for layer, side, _ in found:
            layer._modules.pop(PREFIX + side, None)
        yield
    finally:
        for layer, side, quantizer in found:
            if quantizer is not None:
                layer._modules[PREFIX + side] = quantizer


def finalize_quantizers(network: nn.Module) -> None:
    """Finalize every quantizer that is still in training, in place; shared ones stay shared."""
    finalized: dict[int, ActivationQuantizer | None] = {}
    modules = dict(network.named_modules())
    for (path, side), quantizer in sites(network).items():
        made = finalized.setdefault(id(quantizer), quantizer.finalize())
        if made is None:
            drop_quantizer(modules[path], side)
        else:
            put_quantizer(modules[path], side, made)
