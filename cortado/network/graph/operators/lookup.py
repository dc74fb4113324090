"""Look-ups: entries picked by index."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from cortado.layers.roles import MOVE
from cortado.network.graph.axes.moves import AxisList
from cortado.network.graph.axes.step import Step, Value
from cortado.network.graph.operators.facts import free, known


def embedding(step: Step) -> Value:
    """Follow weight (symbols, width) at indices (...): the width passes."""
    weight, indices = step.tensor("weight"), step.tensor("indices")
    assert weight is not None and indices is not None
    step.keep_whole(weight.axis_list[0])
    step.freeze(*indices.axis_list)
    step.role(weight, 1, "producer")
    return [*([None] * len(indices)), weight.axis_list[1]]


def index(step: Step) -> Value:
    """Follow x[i, :, j ...]: indexed axes stay whole, the others pass."""
    x = step.tensor("self")
    assert x is not None
    given = list(step.arg("indices"))
    given += [None] * (len(x) - len(given))
    places = [place for place, part in enumerate(given) if part is not None]
    for part in step.tensors()[1:]:
        step.freeze(*part.axis_list)
    step.freeze(*(x.axis_list[place] for place in places))
    passing = [axis for place, axis in enumerate(x.axis_list) if place not in places]
    new: AxisList = [None] * (len(step.shape) - len(passing))
    adjacent = places == list(range(places[0], places[-1] + 1)) if places else True
    start = places[0] if places and adjacent else 0
    return [*passing[:start], *new, *passing[start:]]


def index_select(step: Step) -> Value:
    """Keep whole the axis whose rows are selected by index."""
    x = step.tensor("self")
    assert x is not None
    dim = int(step.arg("dim")) % len(x)
    step.freeze(x.axis_list[dim])
    return [None if place == dim else axis for place, axis in enumerate(x.axis_list)]


def embedding_layer(step: Step, shapes: Mapping[str, Any], owner: nn.Module | None) -> nn.Module | None:
    """Build a layer from weight (symbols, width)."""
    if step.arg("sparse") or step.arg("scale_grad_by_freq"):
        return None
    symbols, width = shapes["weight"]
    padding = int(step.arg("padding_idx"))
    return nn.Embedding(symbols, width, padding if padding >= 0 else None, device="meta")


OPERATORS = (
    known("embedding", axes=embedding, cost=free, layer=embedding_layer)
    | known("index", axes=index, cost=free)
    | known("index_select", role=MOVE, axes=index_select, cost=free)
    | known(
        "gather index_add index_copy index_fill index_put _unsafe_index _unsafe_index_put masked_fill masked_scatter "
        "masked_select scatter scatter_add scatter_reduce select_scatter slice_scatter _embedding_bag "
        "_embedding_bag_forward_only",
        cost=free,
    )
)
