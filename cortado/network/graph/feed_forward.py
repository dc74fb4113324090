"""Feed forward: modules that compute linear -> activation -> linear on the last axis and nothing else, found in the graph."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from cortado.layers.kinds import kind_of
from cortado.network.graph.flow import Flow, FlowStep
from cortado.network.graph.graph import Graph


@dataclass(frozen=True)
class FeedForward:
    """The path of the module, those of its linear layers inside it, and the operator between them: "gelu"."""

    path: str
    first: str
    second: str
    activation: str

    def layers(self) -> tuple[str, str]:
        """Return the paths of the linear layers in the network."""
        return tuple(f"{self.path}.{one}".lstrip(".") for one in (self.first, self.second))  # type: ignore[return-value]


@dataclass(frozen=True)
class PairOfLayers:
    """Two linear layers with one operator of one operand between them, and the values at both ends."""

    first: str
    second: str
    activation: str
    given: int
    result: int


def pairs_of_layers(graph: Graph, flow: Flow) -> Iterator[PairOfLayers]:
    """Yield linear layers, each called once, whose output only an activation reads, whose output only a linear layer reads."""
    readers = flow.readers()
    for first in flow.steps:
        if not is_linear(graph, first):
            continue
        between = one_reading(first, readers, flow)
        second = None if between is None else one_reading(between, readers, flow)
        if between is None or second is None or not is_linear(graph, second) or len(between.inputs) != 1:
            continue
        name = pointwise_name(graph, between)
        if name:
            yield PairOfLayers(first.path, second.path, name, first.inputs[0], second.outputs[0])


def one_reading(step: FlowStep, readers: dict[int, list[FlowStep]], flow: Flow) -> FlowStep | None:
    """Return the one step that reads what a step makes; None if several do, or if it is an output."""
    found = [one for value in step.outputs for one in readers.get(value, [])]
    return found[0] if len(found) == 1 and not flow.results.intersection(step.outputs) else None


def is_linear(graph: Graph, step: FlowStep) -> bool:
    """Return whether a step is the only call of a linear layer."""
    layers = [call.layer for call in graph.of(step.path)]
    kind = kind_of(layers[0]) if len(layers) == 1 and isinstance(layers[0], nn.Module) else None
    return kind is not None and kind.family == "linear" and len(step.inputs) == 1


def pointwise_name(graph: Graph, step: FlowStep) -> str:
    """Return the name of the pointwise operator that made the output of a step; "" for any other."""
    return next((one.short_name for one in graph.operators if step.outputs == one.makes and one.pointwise), "")


def feed_forwards(graph: Graph, flow: Flow) -> list[FeedForward]:
    """Return the modules that take what the first layer reads and return what the second makes, the innermost of each pair."""
    found = []
    for pair in pairs_of_layers(graph, flow):
        around = [call.path for call in graph.every_call if holds(call.path, pair) and call.reads[:1] == (pair.given,)
                  and call.makes == (pair.result,) and len(call.reads) == 1 and len(graph.of(call.path)) == 1]  # fmt: skip
        if around:
            path = max(around, key=len)
            first, second = (one.removeprefix(path).removeprefix(".") for one in (pair.first, pair.second))
            found.append(FeedForward(path, first, second, pair.activation))
    return found


def holds(path: str, pair: PairOfLayers) -> bool:
    """Return whether a module holds both layers of a pair."""
    return all(not path or one.startswith(f"{path}.") for one in (pair.first, pair.second))
