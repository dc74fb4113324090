"""Consumers: the batch norm and ReLU behind a layer, and where a constant can be added."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cortado.methods.factorize.targets import Target
from cortado.network.graph.hooks import first_argument
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.network.statistics.activations import channel_axis
from cortado.network.view import View
from cortado.running.trees import to_device

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Consumer:
    """The batch norm that reads a layer's output directly, if any, and whether a ReLU follows."""

    norm: Any = None
    relu: bool = False

    def scale(self, count: int) -> Tensor:
        """Return the factor (count,) by which the norm multiplies each channel, float64; 1 without a norm."""
        if self.norm is None:
            return torch.ones(count, dtype=torch.float64)
        gain = torch.ones(count) if self.norm.weight is None else self.norm.weight.detach()
        return gain.double() / (self.norm.running_var.double() + self.norm.eps).sqrt()

    def shift(self, count: int) -> Tensor:
        """Return what the norm adds to each scaled channel, float64; 0 without a norm."""
        if self.norm is None:
            return torch.zeros(count, dtype=torch.float64)
        bias = torch.zeros(count) if self.norm.bias is None else self.norm.bias.detach()
        return bias.double() - self.scale(count) * self.norm.running_mean.double()

    def takes_constant(self, layer: nn.Module) -> bool:
        """Return whether a constant per channel can be added to the layer's output."""
        return self.norm is not None or layer._parameters.get("bias") is not None

    def add_constant(self, layer: nn.Module, constant: Tensor) -> None:
        """Add a constant (channels,) to the layer's output: to its bias, or the norm's mean; if it has neither, do nothing."""
        bias: Any = layer._parameters.get("bias")
        with torch.no_grad():
            if bias is not None:
                bias += constant.to(bias)
            elif self.norm is not None:
                self.norm.running_mean -= constant.to(self.norm.running_mean)


class ConsumerWatch(TorchDispatchMode):
    """Records which norm and ReLU read the outputs of layers; keeps the tensors alive, so that ids stay unique.

    A tensor changed in place, as by a ReLU, no longer counts as the layer's output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[str, Tensor, int]] = {}
        self.normed: dict[int, tuple[str, Tensor, int]] = {}
        self.norms: dict[str, nn.Module] = {}
        self.relus: set[str] = set()
        self.others: set[tuple[str, bool]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output, name = func(*args, **(kwargs or {})), str(func)
        for value in args:
            if not isinstance(value, Tensor):
                continue
            behind_norm = maker_of(self.normed, value) is not None
            path = maker_of(self.normed, value) or maker_of(self.made, value)
            if path is not None and name.startswith(("aten.relu.", "aten.relu_.")):
                self.relus.add(path)
            elif path is not None and (behind_norm or "batch_norm" not in name):
                self.others.add((path, behind_norm))
        return output

    def consumer(self, path: str) -> Consumer:
        norm = self.norms.get(path)
        if norm is not None and (path, False) in self.others:
            return Consumer()
        return Consumer(norm, path in self.relus and (path, norm is not None) not in self.others)


def maker_of(made: dict[int, tuple[str, Tensor, int]], value: Tensor) -> str | None:
    """Return the path of the layer that produced a tensor in its current version."""
    path, _, version = made.get(id(value), (None, None, -1))
    return path if value._version == version else None


def consumers(view: View, paths: list[str]) -> dict[str, Consumer]:
    """Return the consumer of each of these layers, as observed on the example.

    A norm does not count if it has no stored statistics, normalises another axis than the layer's channels, or is
    called more than once and thus has other producers.
    """
    watch, called = ConsumerWatch(), [id(call.layer) for call in view.trace.calls]

    def gives(path: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            watch.made[id(output)] = (path, output, output._version)

        return hook

    def normed(layer: Any, given: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        activation = first_argument(layer, given, named)
        path = maker_of(watch.made, activation)
        if path is None:
            return
        # A norm over tokens can read a linear layer too, but cannot absorb a constant per feature.
        alone = called.count(id(layer)) == 1
        if alone and layer.running_mean is not None and channel_axis(view.network.get_submodule(path), activation) == 1:
            watch.norms.setdefault(path, layer)
            watch.normed[id(output)] = (path, output, output._version)
        else:
            watch.others.add((path, False))

    hooks = [view.network.get_submodule(path).register_forward_hook(gives(path)) for path in paths]
    norms = [layer for layer in view.network.modules() if isinstance(layer, NORMS)]
    hooks += [layer.register_forward_hook(normed, with_kwargs=True) for layer in norms]
    try:
        with undisturbed(view.network), watch:
            call_with(view.network, to_device(view.example, device_of(view.network) or torch.device("cpu")))
    finally:
        for hook in hooks:
            hook.remove()
    return {path: watch.consumer(path) for path in paths}


def consumer_of(view: View, target: Target) -> Consumer:
    """Return what follows a layer; nothing if it is called in several places."""
    return consumers(view, [target.path])[target.path] if len(target.runs) == 1 else Consumer()
