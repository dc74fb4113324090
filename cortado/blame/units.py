"""Units: the roundings of a network, one by one, and the layers that they belong to."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cortado.layers.roles import CLIP, JOIN, MATMUL, MOVE, NORM
from cortado.network.graph.flow import Flow, flow_of
from cortado.network.graph.graph import Graph
from cortado.parts.activations.quantizer import PREFIX, ActivationQuantizer, drop_quantizer, sites

Place = tuple[str, str]


@dataclass(frozen=True)
class BlamedGrid:
    """One activation quantizer with all its places; it is needed while one of `layers` runs in integers.

    These are the products that read its values, and the product whose output it rounds.
    """

    quantizer: ActivationQuantizer
    places: tuple[Place, ...]
    layers: frozenset[str]

    @property
    def starts_at_zero(self) -> bool:
        """Return whether it clips values below zero."""
        ends = self.quantizer.ends()
        return ends is not None and ends[0] == 0


@dataclass(frozen=True)
class Units:
    """All grids of a network, and its layers with rounded weights: path -> (weight in floats, rounded weight)."""

    grids: tuple[BlamedGrid, ...]
    weights: Mapping[str, tuple[Tensor, Tensor]]
    layers: tuple[str, ...]
    """The layers that run in integers, in the order in which they run."""
    clips: bool = False
    """Whether grids from zero on stand for a ReLU too, as in files in integers."""

    def leave(self, network: Any, floats: Collection[str]) -> None:
        """Take the grids off a network that only these layers need, and give the layers their weights in floats, in place."""
        modules = dict(network.named_modules())
        for grid in self.grids:
            if grid.layers <= set(floats):
                for path, side in grid.places:
                    if self.clips and grid.starts_at_zero:
                        modules[path]._modules[PREFIX + side] = nn.ReLU()
                    else:
                        drop_quantizer(modules[path], side)
        for path in floats:
            if path in self.weights:
                modules[path].weight.data = self.weights[path][0].clone()


def roundings_of(network: nn.Module, graph: Graph, originals: Mapping[str, Tensor], clips: bool = False) -> Units:
    """Return the roundings of a network of dense weights; `originals` are the layers' weights in floats, by path."""
    flow, found = flow_of(graph), sites(network)
    by_quantizer: dict[int, list[Place]] = {}
    for place, quantizer in found.items():
        by_quantizer.setdefault(id(quantizer), []).append(place)
    value_at = {place: value for value, places in flow.places.items() for place in places}
    rounded = {value_at[place] for place in found if place in value_at}
    grids = []
    for places in by_quantizer.values():
        values = {value_at[place] for place in places if place in value_at}
        layers = frozenset(path for value in values for path in layers_around(flow, value, rounded))
        grids.append(BlamedGrid(found[places[0]], tuple(places), layers))
    products = list(dict.fromkeys(step.path for step in flow.steps if step.kind == MATMUL))
    weights = {}
    for path in products:
        held: Any = network.get_submodule(path)
        if path in originals and not bool((held.weight == originals[path]).all()):
            weights[path] = (originals[path], held.weight.detach().clone())
    reading = {path for grid in grids for path in grid.layers}
    return Units(tuple(grids), weights, tuple(path for path in products if path in weights or path in reading), clips)


def layers_around(flow: Flow, value: int, rounded: Collection[int]) -> set[str]:
    """Return the products that read a rounded value, and the one that makes it, through what runtimes fuse or move."""
    makers = {made: step for step in flow.steps for made in step.outputs}
    readers, found, open_values = flow.readers(), set[str](), [value]
    while open_values:
        for step in readers.get(open_values.pop(), []):
            if step.kind == MATMUL:
                found.add(step.path)
            elif step.kind in (MOVE, CLIP, JOIN):
                open_values += [made for made in step.outputs if made not in rounded]
    maker = makers.get(value)
    while maker is not None and maker.kind in (CLIP, NORM, MOVE) and maker.inputs and maker.inputs[0] not in rounded:
        maker = makers.get(maker.inputs[0])
    if maker is not None and maker.kind == MATMUL:
        found.add(maker.path)
    return found
