"""Flattened: linear layers that read flattened maps, and what runs behind them."""

from dataclasses import dataclass
from typing import Any

from cortado.layers.roles import MOVE
from cortado.network.graph.graph import Graph
from cortado.network.graph.record import Call, Operator


@dataclass(frozen=True)
class FlatHead:
    """A linear layer on flattened maps: its path, and the channels and the places of the maps.

    `rest`: the paths of the modules between the layer and the network's output, each of which reads what the one before
    returns; None where something else is between them.
    """

    path: str
    channels: int
    places: int
    rest: tuple[str, ...] | None


def head_at(graph: Graph, layer: Any) -> FlatHead | None:
    """Return a linear layer as a head; None if it does not read maps of several places, flattened channel by channel."""
    calls = graph.calls_of(layer)
    if len(calls) != 1 or not calls[0].reads or len(calls[0].inputs[0]) != 2:
        return None
    maps = flattened_maps(graph, calls[0].reads[0])
    return None if maps is None else FlatHead(calls[0].path, *maps, modules_behind(graph, calls[0]))


def flattened_maps(graph: Graph, value: int) -> tuple[int, int] | None:
    """Return the channels and places of the maps (N, channels, ...) whose entries a value (N, channels x places) has."""
    makers = {one: operator for operator in graph.operators for one in operator.makes}
    operator = makers.get(value)
    if operator is None or operator.role != MOVE or len(operator.reads) != 1:
        return None
    before, after = given_shape(operator), operator.outputs[0]
    if len(before) < 3 or before[0] != after[0] or before[1] == after[1]:
        return None
    source = makers.get(operator.reads[0])
    while source is not None and source.role == MOVE and len(source.reads) == 1:
        if axes_turned(source):
            return None
        source = makers.get(source.reads[0]) if given_shape(source) == source.outputs[0] else None
    return before[1], after[1] // before[1]


def given_shape(operator: Operator) -> tuple[int, ...]:
    """Return the shape of an operator's first argument; () if that is no tensor."""
    first = operator.arguments[0] if operator.arguments else ()
    return first if isinstance(first, tuple) else ()


def axes_turned(operator: Operator) -> bool:
    """Return whether an operator puts axes in another order, so that the second is not known to be that of channels."""
    before, after = given_shape(operator), operator.outputs[0]
    return before != after and sorted(before) == sorted(after)


def modules_behind(graph: Graph, call: Call) -> tuple[str, ...] | None:
    """Return the paths of the modules between a call and the network's output, or None (see FlatHead)."""
    found: list[str] = []
    value = call.makes[0] if call.makes else -1
    while True:
        # Dropout does nothing when it is traced, and would in a training.
        idle = [one for one in graph.callers.get(value, ()) if one.makes == (value,) and runs_alone(graph, one)]
        found += [one.path for one in idle]
        if value in graph.results:
            return None if graph.readers.get(value) else tuple(found)
        running = {operator.call for operator in graph.readers.get(value, ())}
        if len(running) != 1 or -1 in running:
            return None
        following = graph.every_call[running.pop()]
        if not runs_alone(graph, following) or following.reads != (value,) or len(following.makes) != 1:
            return None
        found.append(following.path)
        value = following.makes[0]


def runs_alone(graph: Graph, call: Call) -> bool:
    """Return whether a call is the only one of a module that holds no others."""
    return len(graph.calls_of(call.layer)) == 1 and not list(call.layer.children())
