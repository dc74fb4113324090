"""Activity: the share of nonzero activations between layers, measured on data."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from cortado.errors import BadValue
from cortado.layers.kinds import kind_of
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.running.trees import pick, tensors_in, to_device

Origins = frozenset[str]


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
    watch = ActivityWatch(network)
    with undisturbed(network):
        for start in range(0, len(tensors[0]), chunk):
            with watch.listening():
                call_with(network, pick(data, slice(start, start + chunk)))
    return {path: tally.activity() for path, tally in watch.tallies.items() if tally.given.total}


class ActivityWatch(TorchDispatchMode):
    """Follows activations from layer to layer: a tensor's origins are the layers whose outputs it was computed from."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.layers: dict[str, nn.Module] = {}
        for path, module in network.named_modules():
            kind = kind_of(module)
            if kind is not None and kind.family not in ("norm", "activation"):
                self.layers[path] = module
        self.tallies = {path: LayerTally() for path in self.layers}
        self.running: list[str] = []
        self.origins = WeakTensorKeyDictionary()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Count the network's activations inside the block."""
        handles = []
        try:
            for path, layer in self.layers.items():
                handles.append(layer.register_forward_pre_hook(self.entering(path), with_kwargs=True))
                handles.append(layer.register_forward_hook(self.leaving(path), always_call=True))
            with self:
                yield
        finally:
            self.running.clear()
            for handle in handles:
                handle.remove()

    def entering(self, path: str) -> Any:
        """Return a hook that counts the input of the layer at `path`."""

        def enter(layer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            for activation in tensors_in((positional, named))[:1]:
                origins: Origins = self.origins.get(activation, frozenset())
                if origins:
                    self.tallies[path].read.add(activation)
                if len(origins) == 1:
                    self.tallies[next(iter(origins))].passed_on.add(activation)
            self.running.append(path)

        return enter

    def leaving(self, path: str) -> Any:
        """Return a hook that counts the output of the layer at `path`."""

        def leave(layer: nn.Module, positional: tuple[Any, ...], output: Any) -> None:
            self.running.pop()
            for activation in tensors_in(output)[:1]:
                self.tallies[path].given.add(activation)

        return leave

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        origins: Origins = frozenset(self.running[-1:])
        if not self.running:
            read = [self.origins.get(tensor, origins) for tensor in tensors_in((args, kwargs or {}))]
            origins = origins.union(*read)
        for tensor in tensors_in(output):
            self.origins[tensor] = origins
        return output
