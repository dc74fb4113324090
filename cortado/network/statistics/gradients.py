"""Gradients with respect to the dense weights of a network, whatever their forms."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cortado.network.graph.hooks import before_call
from cortado.network.view import View
from cortado.network.weight import Weight, parameter_places
from cortado.parts.forms.attach import attached_names, release
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.data import Data

SlopeOf = Callable[[Any, Any], Tensor]
"""(outputs, targets) -> a scalar to be differentiated."""


def released(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode with plain parameters that may have gradients; tied weights stay tied."""
    duplicate = copy.deepcopy(network).eval()
    for weight in parameter_places(duplicate):
        layer, name = weight.places[0]
        value = release(layer, name) if name in attached_names(layer) else layer._parameters[name]
        for other, other_name in weight.places[1:]:
            release(other, other_name)
            other._parameters[other_name] = value  # type: ignore[assignment]
    for parameter in duplicate.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return duplicate


def gradients(view: View, weights: list[Weight], data: Data, batch: int, slope: SlopeOf) -> Iterator[list[Tensor]]:
    """Yield, for each batch of `data`, the gradients of `slope` with respect to the dense values of `weights`."""
    duplicate = released(view.network)
    by_path = {weight.path: weight for weight in parameter_places(duplicate)}
    wanted = [getattr(by_path[weight.path].layer, by_path[weight.path].name) for weight in weights]
    device = wanted[0].device
    for inputs, targets in data.batches(batch):
        value = slope(call(duplicate, to_device(inputs, device)), to_device(targets, device))
        found = torch.autograd.grad(value, wanted, allow_unused=True)
        yield [torch.zeros_like(w) if g is None else g for g, w in zip(found, wanted, strict=True)]


def input_squares(view: View, weights: list[Weight], data: Data, batch: int) -> dict[str, Tensor]:
    """Return the mean square of each input channel, for each layer of `weights` that was called.

    Streaming: memory does not grow with the data.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def note(path: str) -> Callable[[nn.Module, Any], None]:
        def hook(layer: nn.Module, activation: Any) -> None:
            if not isinstance(activation, Tensor) or not activation.is_floating_point():
                return
            axis = input_axis(layer, activation)
            flat = activation.transpose(0, axis).reshape(activation.shape[axis], -1)
            sums[path] = sums.get(path, torch.zeros(flat.shape[0])) + (flat**2).sum(1).cpu()
            counts[path] = counts.get(path, 0) + flat.shape[1]

        return hook

    hooks = [before_call(weight.layer, note(weight.layer_path)) for weight in weights]
    device = own_device(view.network)
    try:
        with eval_mode(view.network):
            for inputs, _ in data.batches(batch):
                call(view.network, to_device(inputs, device))
    finally:
        for hook in hooks:
            hook.remove()
    return {path: total / counts[path] for path, total in sums.items()}


def input_axis(layer: nn.Module, activation: Tensor) -> int:
    """Return a layer's input channel axis: the one before its kernel axes, with or without a batch axis, or the last."""
    kernel = layer.__dict__.get("kernel_size")
    if isinstance(kernel, tuple) and activation.dim() > len(kernel):
        return activation.dim() - 1 - len(kernel)
    return 1 if kernel is not None and activation.dim() > 2 else activation.dim() - 1
