"""Batches: which numbers of a traced graph follow from how many samples it was traced with, seen by tracing it twice."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from cortado.errors import BadNetwork
from cortado.network.coupling.capture import Captured, capture
from cortado.network.coupling.step import operator_name, source_of

Following = dict[fx.Node, list[int]]
"""For each operator the places, among the leaves of its arguments, of numbers that are multiples of the batch."""


def samples_in(captured: Captured, axis: int) -> int:
    """How many samples a network was traced with: the length of `axis` of its first input that has one.

    Raises BadNetwork when no input has.
    """
    for part in pytree.tree_leaves(captured.program.example_inputs):
        if isinstance(part, Tensor) and part.dim() > axis:
            return int(part.shape[axis])
    raise BadNetwork(f"graph: no input has an axis {axis} for samples. Pass an example with them, or another axis=.")


def with_samples(captured: Captured, count: int, axis: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs of a traced network with `count` samples: rows repeated or left out where `axis` has the samples."""
    given = samples_in(captured, axis)

    def repeated(part: Tensor) -> Tensor:
        if part.dim() <= axis or part.shape[axis] != given:
            return part
        return part.index_select(axis, torch.arange(count, device=part.device) % given)

    positional, named = pytree.tree_map_only(Tensor, repeated, captured.program.example_inputs)
    return positional, named


def following_batch(network: nn.Module, captured: Captured, axis: int) -> Following:
    """The numbers of a traced network that are multiples of its samples: those that change when there is one more.

    Raises BadNetwork when the graph depends on the batch in any other way, with the first line where it does.
    """
    count = samples_in(captured, axis)
    positional, named = with_samples(captured, count + 1, axis)
    try:
        other = capture(network, named or positional)
    except BadNetwork as error:
        raise BadNetwork(
            f"graph: {type(network).__name__} was traced with {count} samples and fails with {count + 1}, made by repeating "
            f"those of axis {axis}: {error}"
        ) from error
    return Comparison(count, count + 1).graphs(captured.graph, other.graph)


class Comparison:
    """Walks two graphs of one network, traced with `one` and with `other` samples, side by side."""

    def __init__(self, one: int, other: int) -> None:
        self.one, self.other = one, other
        self.duplicates: dict[fx.Node, fx.Node] = {}

    def graphs(self, left: fx.Graph, right: fx.Graph, inside: bool = False) -> Following:
        """The numbers that follow; `inside` a part that is called as a whole there may be none."""
        found: Following = {}
        # Each graph ends with its only output: of two lengths, an earlier node differs.
        for a, b in zip(left.nodes, right.nodes, strict=True):
            self.duplicates[a] = b
            if (a.op, a.name if a.op == "placeholder" else a.target) != (
                b.op, b.name if b.op == "placeholder" else b.target,
            ):  # fmt: skip
                raise self.refusal(a, f"{operator_name(a)} with the one and {operator_name(b)} with the other")
            places = list(self.numbers(a, b))
            if places and inside:
                raise self.refusal(a, "a number inside a part that is called as a whole, as code under autocast is")
            if places:
                found[a] = places
            self.shapes(a, b)
            if a.op == "get_attr":
                self.parts(a, b)
        if len(left.nodes) != len(right.nodes):
            raise self.refusal(
                None, f"{len(left.nodes)} operators with the one and {len(right.nodes)} with the other, as a loop has"
            )
        return found

    def parts(self, a: fx.Node, b: fx.Node) -> None:
        """Graphs inside a graph."""
        mine, theirs = (getattr(node.graph.owning_module, str(node.target), None) for node in (a, b))
        if isinstance(mine, fx.GraphModule) and isinstance(theirs, fx.GraphModule):
            self.graphs(mine.graph, theirs.graph, inside=True)

    def numbers(self, a: fx.Node, b: fx.Node) -> Iterator[int]:
        """The places of numbers that are multiples of the batch.  Anything else must be the same in both."""
        mine, shape = pytree.tree_flatten((a.args, a.kwargs))
        theirs, other_shape = pytree.tree_flatten((b.args, b.kwargs))
        if shape != other_shape:
            raise self.refusal(a, "another number of arguments")
        for place, (x, y) in enumerate(zip(mine, theirs, strict=True)):
            if isinstance(x, fx.Node):
                if self.duplicates.get(x) is not y:
                    raise self.refusal(a, "another tensor as argument")
            elif type(x) is not type(y) or (x != y and x == x):
                if not (type(x) is int and type(y) is int and self.multiples(x, y)):
                    raise self.refusal(a, f"{x} with the one and {y} with the other, no multiples of the batch")
                yield place

    def shapes(self, a: fx.Node, b: fx.Node) -> None:
        """Every axis of every result is as long in both, or a multiple of the batch."""
        mine, theirs = (
            [tuple(map(int, v.shape)) for v in pytree.tree_leaves(node.meta.get("val")) if isinstance(v, Tensor)]
            for node in (a, b)
        )
        if len(mine) != len(theirs):
            raise self.refusal(a, f"{len(mine)} results with the one and {len(theirs)} with the other")
        for one, other in zip(mine, theirs, strict=True):
            if len(one) != len(other) or not all(
                x == y or self.multiples(x, y) for x, y in zip(one, other, strict=True)
            ):
                raise self.refusal(a, f"shape {one} with the one and {other} with the other, no multiples of the batch")

    def multiples(self, x: int, y: int) -> bool:
        return x % self.one == 0 and x * self.other == y * self.one

    def refusal(self, node: fx.Node | None, says: str) -> BadNetwork:
        line = "" if node is None else source_of(node) or operator_name(node)
        return BadNetwork(
            f"graph: with {self.one} and with {self.other} samples the network runs other code{f' at {line}' if line else ''}: "
            f"{says}. A graph for any batch cannot be written; take sizes from the input and use no loops over samples."
        )
