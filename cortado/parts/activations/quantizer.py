"""Activation: how the values that pass between layers are rounded - a property of a layer's input or of its output."""

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.parts.part import Part

INPUT, OUTPUT = "input", "output"
SIDES = (INPUT, OUTPUT)
PREFIX = "signal_"


class ActivationQuantizer(Part):
    """Rounds an activation as it passes; float parts are Parameters, so that training can move them.

    Described for the file as a form is: small facts (`spec`) and numbers (`parts`: one float or whole number each).
    """

    facts: ClassVar[tuple[str, ...]] = ()
    floats: ClassVar[tuple[str, ...]] = ()
    integers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """The values as they go on, same shape; gradients pass where a small change of the input would matter."""

    @abstractmethod
    def spec(self) -> dict[str, int]:
        """Small facts, as whole numbers of 0 and more."""

    @abstractmethod
    def parts(self) -> dict[str, Tensor]:
        """One number for each name of `floats` and `integers`, as tensors of one entry."""

    @classmethod
    @abstractmethod
    def from_parts(cls, spec: dict[str, int], parts: dict[str, Tensor]) -> "ActivationQuantizer":
        """The activation that `spec` and `parts` describe.  Raises BadValue when they contradict one another."""

    @abstractmethod
    def bits(self) -> int:
        """Bits of one value that passes."""

    def ends(self) -> tuple[float, float] | None:
        """The lowest and the highest value that can pass; None where that changes with the sample, or has no end."""
        return None

    def finalize(self) -> "ActivationQuantizer | None":
        """This rounding as it is kept, after training; None where nothing is left of it."""
        return self


def quantizer_at(layer: nn.Module, side: str) -> ActivationQuantizer | None:
    """What rounds the input or the output of a layer; None when nothing does."""
    return layer._modules.get(PREFIX + side)  # type: ignore[return-value]


def put_quantizer(layer: nn.Module, side: str, quantizer: ActivationQuantizer) -> None:
    """Round the first input, or the output, of `layer` from now on, in the place of what rounded it before.

    Raises BadNetwork for a container that runs whatever it contains: there the layer at its end is meant.
    """
    if isinstance(layer, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        raise BadNetwork(
            f"activations: {type(layer).__name__} runs every module it holds and can have no rounding of its own. "
            "Round the output of its last layer, or the input of its first one."
        )
    new = quantizer_at(layer, side) is None
    layer.add_module(PREFIX + side, quantizer)
    if new and side == INPUT:
        layer.register_forward_pre_hook(round_input, with_kwargs=True)
    elif new:
        layer.register_forward_hook(round_output)


def drop_quantizer(layer: nn.Module, side: str) -> None:
    """Let the input or the output pass as it is again."""
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
    """A hook: the first argument, given by place or by name, goes in rounded."""
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
    """A hook: an output that is one tensor comes out rounded."""
    quantizer = quantizer_at(layer, OUTPUT)
    return None if quantizer is None or not isinstance(output, Tensor) else rounded_values(quantizer, output)


def rounded_values(quantizer: ActivationQuantizer, values: Tensor) -> Tensor:
    """Return the values rounded; torch's fused attention passes on samples of several lengths, nested in one tensor."""
    if values.layout == torch.strided and values.is_nested:
        return torch.nested.as_nested_tensor([quantizer(sample[None])[0] for sample in values.unbind()])
    return quantizer(values)


def sites(network: nn.Module) -> dict[tuple[str, str], ActivationQuantizer]:
    """Every rounding of a network by the path of its layer and the side, in the order of the modules."""
    found = ((path, layer, side) for path, layer in network.named_modules() for side in SIDES)
    return {
        (path, side): quantizer for path, layer, side in found if (quantizer := quantizer_at(layer, side)) is not None
    }


def take_quantizers(network: nn.Module) -> dict[tuple[str, str], ActivationQuantizer]:
    """Take every rounding of a network off, hooks and all; gives what `give_quantizers` puts on again."""
    found, modules = sites(network), dict(network.named_modules())
    for path, side in found:
        drop_quantizer(modules[path], side)
    return found


def give_quantizers(network: nn.Module, quantizers: dict[tuple[str, str], ActivationQuantizer]) -> None:
    """Put roundings on the layers at their paths, whatever layers stand there by now."""
    modules = dict(network.named_modules())
    for (path, side), quantizer in quantizers.items():
        put_quantizer(modules[path], side, quantizer)


@contextlib.contextmanager
def unrounded(network: nn.Module) -> Iterator[None]:
    """Let every activation pass as it is, for a while."""
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
    """Replace every rounding that is still in training by the one it becomes, in place; shared ones stay shared."""
    finalized: dict[int, ActivationQuantizer | None] = {}
    modules = dict(network.named_modules())
    for (path, side), quantizer in sites(network).items():
        made = finalized.setdefault(id(quantizer), quantizer.finalize())
        if made is None:
            drop_quantizer(modules[path], side)
        else:
            put_quantizer(modules[path], side, made)
