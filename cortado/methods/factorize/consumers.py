"""Consumers: the batch norm and ReLU behind a layer, and where a constant can be added."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.kinds import kind_of
from cortado.layers.norm import batch_norm_class, is_batch_norm
from cortado.methods.factorize.targets import Target
from cortado.network.graph.graph import Graph
from cortado.network.view import View


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


def consumers(view: View, paths: list[str]) -> dict[str, Consumer]:
    """Return the consumer of each of these layers, as observed on the example.

    A norm does not count if it has no stored statistics, normalises another axis than the layer's channels, or is
    called more than once and thus has other producers.
    """
    return {path: consumer_in(view.graph, view.network.get_submodule(path)) for path in paths}


def consumer_in(graph: Graph, layer: nn.Module) -> Consumer:
    """Return what follows a layer in a run."""
    made = graph.made_by(layer)
    norms = [call for value in made for call in graph.callers.get(value, ()) if batch_norm_class(call.layer)]
    if not norms:
        return Consumer(None, only_relu(graph, made))
    first = norms[0]
    kind = kind_of(layer)
    # A norm over tokens can read a linear layer too, but cannot absorb a constant per feature.
    channels = kind is not None and len(first.inputs[0]) == kind.spatial + 2
    alone = len(graph.calls_of(first.layer)) == 1 and all(graph.read_only_by(value, first.layer) for value in made)
    if not (alone and channels and is_batch_norm(first.layer)):
        return Consumer()
    return Consumer(first.layer, only_relu(graph, graph.made_by(first.layer)))


def only_relu(graph: Graph, values: list[int]) -> bool:
    """Return whether every operator that reads these values is a ReLU, and some does."""
    readers = [operator for value in values for operator in graph.readers.get(value, ())]
    return bool(readers) and all(operator.short_name == "relu" for operator in readers)


def consumer_of(view: View, target: Target) -> Consumer:
    """Return what follows a layer; nothing if it is called in several places."""
    return consumers(view, [target.path])[target.path] if len(target.runs) == 1 else Consumer()
