"""Activity: the share of nonzero activations between layers, measured on data."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.layers.kinds import kind_of
from cortado.network.graph.graph import Graph
from cortado.network.graph.trace import device_of, trace
from cortado.running.trees import pick, tensors_in, to_device

Origins = frozenset[int]


@dataclass(frozen=True)
class Activity:
    """Shares of nonzero activations, 0..1.

    `inputs`: of the layer's input; None for the network's own input, which counts as dense. `outputs`: of the layer's
    output as the next layers read it, after any ReLU or pooling; of the output itself where no other layer reads it
    alone.
    """

    inputs: float | None
    outputs: float


@dataclass
class Tally:
    """The number of activations seen, and of nonzero ones."""

    nonzero: int = 0
    total: int = 0

    def add(self, activation: Tensor) -> None:
        self.nonzero += int(torch.count_nonzero(activation))
        self.total += activation.numel()

    def merge(self, other: "Tally") -> None:
        self.nonzero += other.nonzero
        self.total += other.total

    @property
    def share(self) -> float:
        return self.nonzero / self.total


@dataclass
class LayerTally:
    """The three places at which a layer's activations are counted."""

    read: Tally = field(default_factory=Tally)
    passed_on: Tally = field(default_factory=Tally)
    given: Tally = field(default_factory=Tally)

    def activity(self) -> Activity:
        outputs = self.passed_on if self.passed_on.total else self.given
        return Activity(self.read.share if self.read.total else None, outputs.share)


def measure_activity(network: nn.Module, data: Any, chunk: int = 128) -> dict[str, Activity]:
    """Run `data` (a tensor, tuple or dict of inputs, samples first) through the network, `chunk` samples at a time.

    Returns the activity of each layer of a known kind with weights, norms excluded, by its first path; for a layer
    with several inputs, that of the first. The network is left unchanged. Raises BadValue when the data are empty,
    BadNetwork when the network fails on them.
    """
    data = to_device(data, device_of(network))
    tensors = tensors_in(data)
    if not tensors or len(tensors[0]) == 0:
        raise BadValue("activity: the data have no samples. Pass a tensor, tuple or dict of inputs, samples first.")
    layers = {path: module for path, module in network.named_modules() if is_counted(module)}
    tallies = {id(layer): LayerTally() for layer in layers.values()}
    for start in range(0, len(tensors[0]), chunk):
        count_chunk(network, pick(data, slice(start, start + chunk)), list(layers.values()), tallies)
    return {path: tallies[id(layer)].activity() for path, layer in layers.items() if tallies[id(layer)].given.total}


def is_counted(module: nn.Module) -> bool:
    """Return whether a layer's activations are counted: it has a kind and weights, and is no norm."""
    kind = kind_of(module)
    return kind is not None and kind.family not in ("norm", "activation")


def count_chunk(network: nn.Module, data: Any, layers: list[nn.Module], tallies: dict[int, LayerTally]) -> None:
    """Run some samples and add their activations to the tallies of the layers (by id)."""
    read: dict[int, list[Tally]] = {}

    def enter(layer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        here = Tally()
        for activation in tensors_in((positional, named))[:1]:
            here.add(activation)
        read.setdefault(id(layer), []).append(here)

    def leave(layer: nn.Module, positional: tuple[Any, ...], output: Any) -> None:
        for activation in tensors_in(output)[:1]:
            tallies[id(layer)].given.add(activation)

    handles: list[Any] = []
    try:
        for layer in layers:
            handles.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(layer.register_forward_hook(leave))
        graph = trace(network, data)
    finally:
        for handle in handles:
            handle.remove()
    origins = origins_in(graph, set(tallies))
    for layer in layers:
        for call, here in zip(graph.calls_of(layer), read.get(id(layer), []), strict=True):
            before = origins.get(call.reads[0], frozenset()) if call.reads else frozenset()
            if before:
                tallies[id(layer)].read.merge(here)
            if len(before) == 1:
                tallies[next(iter(before))].passed_on.merge(here)


def origins_in(graph: Graph, layers: set[int]) -> dict[int, Origins]:
    """Return, for each value, the layers (by id) from whose outputs it was computed."""
    within: list[int | None] = []
    for call in graph.every_call:
        around = within[call.around] if call.around >= 0 else None
        within.append(id(call.layer) if id(call.layer) in layers else around)
    found: dict[int, Origins] = {}
    for operator in graph.operators:
        layer = within[operator.call] if operator.call >= 0 else None
        read = [found.get(value, frozenset()) for value in operator.reads] if layer is None else [frozenset((layer,))]
        found |= dict.fromkeys(operator.makes, frozenset[int]().union(*read))
    return found
