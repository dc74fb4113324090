"""Edges: files that take and give pictures channels last (NHWC), or 8-bit integers, where the runtime has such files."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import OUTPUT, ActivationQuantizer, put_quantizer, quantizer_at, sites
from cortado.report.record import Edge
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import map_tensors, tensors_in
from cortado.runtimes.runtime import Port, Runtime, Session
from cortado.task.data import Data

NHWC, INT8 = "nhwc", "int8"
BITS = 8
CALIBRATION_SAMPLES, BATCH = 512, 64


def with_edges(runtime: Runtime, layout: str | None, edges: str | None) -> Runtime:
    """Return the runtime, set to write files of that layout ("nhwc") and of those edges ("int8"); None: the network's own.

    Raises BadValue for other values, and for a runtime that has no such files.
    """
    for name, value, known in (("layout", layout, NHWC), ("edges", edges, INT8)):
        if value is not None and value != known:
            raise BadValue(f"export: {name} must be {known!r} or left out, got {value!r}. Write {name}={known!r}.")
        if value is not None and name not in runtime.edge_options:
            raise BadValue(
                f"{runtime.name()}: this runtime has no {name}, got {name}={value!r}. Leave it out, or export to litert."
            )
    if layout is None and edges is None:
        return runtime
    made = copy.copy(runtime)
    made.layout, made.integer_edges = layout, edges is not None
    return made


def with_own_edges(runtime: Runtime) -> Runtime:
    """Return the runtime, set to write files with the network's own inputs and outputs."""
    made = copy.copy(runtime)
    made.layout, made.integer_edges = None, False
    return made


def last_to_first(value: Tensor) -> Tensor:
    """Return pictures (N, H, W, C) as (N, C, H, W); other tensors as they are."""
    return value.permute(0, 3, 1, 2) if value.dim() == 4 else value


def first_to_last(value: Tensor) -> Tensor:
    """Return pictures (N, C, H, W) as (N, H, W, C); other tensors as they are."""
    return value.permute(0, 2, 3, 1) if value.dim() == 4 else value


def restored(value: Tensor) -> Tensor:
    """Return `first_to_last` of pictures with strides of their own."""
    return first_to_last(value).contiguous()


class ChannelsLast(nn.Module):
    """A network that takes and gives pictures (N, H, W, C); all other tensors stay as they are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *positional: Any, **named: Any) -> Any:
        positional, named = map_tensors(last_to_first, (positional, named))
        return map_tensors(first_to_last, self.network(*positional, **named))


class ChannelsFirstSession:
    """A session of a file with pictures (N, H, W, C), for callers with pictures (N, C, H, W)."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.inputs = tuple(port_in_order(port) for port in session.inputs)

    def __call__(self, *activations: Tensor) -> tuple[Tensor, ...]:
        return tuple(last_to_first(value) for value in self.session(*map(restored, activations)))


def port_in_order(port: Port) -> Port:
    """Return an input (N, H, W, C) as (N, C, H, W); others as they are."""
    if len(port.shape) != 4:
        return port
    return Port(port.name, tuple(port.shape[axis] for axis in (0, 3, 1, 2)), port.dtype)


def rounded_ends(network: nn.Module, data: Data) -> nn.Module:
    """Return a copy of a network with quantized activations whose outputs are rounded to 8 bits too.

    Their ranges are those on the first 512 samples of `data`. Raises BadNetwork without quantized activations, and if an
    output is no layer's.
    """
    if not sites(network):
        raise BadNetwork(
            f"export: {type(network).__name__} computes in floats, so its edges cannot be int8. "
            "Quantize it first: quantize/weights bits=8 | quantize/activations."
        )
    made = copy.deepcopy(network)
    for path, (low, high) in ranges_of_ends(made, data).items():
        layer = made.get_submodule(path)
        if quantizer_at(layer, OUTPUT) is None:
            put_quantizer(layer, OUTPUT, Affine.spanning(low, high, BITS))
    return made


def ranges_of_ends(network: nn.Module, data: Data) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of each layer whose output the network returns, by its path."""
    # The tensors are kept, since another could get the number of one that is gone.
    made: dict[int, tuple[Tensor, str]] = {}

    def note(path: str) -> Any:
        def hook(layer: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                # Outer modules return what an inner one returned before.
                made.setdefault(id(output), (output, path))

        return hook

    parts = [
        (path, part) for path, part in network.named_modules() if path and not isinstance(part, ActivationQuantizer)
    ]
    hooks = [part.register_forward_hook(note(path)) for path, part in parts]
    found: dict[str, tuple[float, float]] = {}
    try:
        with eval_mode(network), torch.no_grad():
            for inputs, _ in data.first(CALIBRATION_SAMPLES).batches(BATCH):
                made.clear()
                for value in tensors_in(call(network, inputs)):
                    if id(value) not in made:
                        raise BadNetwork(no_layer(network))
                    path = made[id(value)][1]
                    low, high = found.get(path, (0.0, 0.0))
                    found[path] = min(low, float(value.min())), max(high, float(value.max()))
    finally:
        for handle in hooks:
            handle.remove()
    return found


def no_layer(network: nn.Module) -> str:
    """Return a sentence on an output that no layer computes."""
    return (
        f"export: {type(network).__name__} returns a value that no layer computes, so it cannot be rounded to int8. "
        "Let a layer have the last word: self.end = nn.Identity(), and return self.end(value)."
    )


def require_integers(edges: tuple[Edge, ...], runtime: Runtime) -> None:
    """Raise BadNetwork if an input or output of the file is not int8."""
    for edge in edges:
        if edge.dtype != INT8:
            raise BadNetwork(
                f"{runtime.name()}: {edge.text()}, but edges='int8' was asked for. Leave it out, or let the network read and "
                "return activations that quantize/activations rounds."
            )
