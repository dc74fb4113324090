"""Batches: which numbers in a traced graph depend on the batch size, found by tracing it twice."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from cortado.errors import BadNetwork
from cortado.network.coupling.capture import Captured, capture
from cortado.network.graph.axes.step import operator_name, source_of

Following = dict[fx.Node, list[int]]
"""For each operator, the positions among its argument leaves of numbers that are multiples of the batch."""


def samples_in(captured: Captured, axis: int) -> int:
    """Return the batch size of a trace: the length of `axis` in the first input that has one.

    Raises BadNetwork when no input has.
    """
    for part in pytree.tree_leaves(captured.program.example_inputs):
        if isinstance(part, Tensor) and part.dim() > axis:
            return int(part.shape[axis])
    raise BadNetwork(f"graph: no input has an axis {axis} for samples. Pass an example that has one, or another axis=.")


def with_samples(captured: Captured, count: int, axis: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the inputs of a traced network with `count` samples: rows are repeated or dropped on the batch `axis`."""
    given = samples_in(captured, axis)

    def repeated(part: Tensor) -> Tensor:
        if part.dim() <= axis or part.shape[axis] != given:
            return part
        return part.index_select(axis, torch.arange(count, device=part.device) % given)

    positional, named = pytree.tree_map_only(Tensor, repeated, captured.program.example_inputs)
    return positional, named


def following_batch(network: nn.Module, captured: Captured, axis: int) -> Following:
    """Return the numbers of a traced network that are multiples of its batch: those that change with one more sample.

    Raises BadNetwork, with the first such line, when the graph depends on the batch in any other way.
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
    """Walks two graphs of one network in parallel, traced with `one` and with `other` samples."""

    def __init__(self, one: int, other: int) -> None:
        self.one, self.other = one, other
        self.duplicates: dict[fx.Node, fx.Node] = {}

    def graphs(self, left: fx.Graph, right: fx.Graph, inside: bool = False) -> Following:
        """Return the numbers that follow the batch; `inside` a part that is called as a whole there may be none."""
        found: Following = {}
        # Each graph ends with its only output; if lengths differ, an earlier node differs too.
        for a, b in zip(left.nodes, right.nodes, strict=True):
            self.duplicates[a] = b
            if (a.op, a.name if a.op == "placeholder" else a.target) != (
                b.op, b.name if b.op == "placeholder" else b.target,
            ):  # fmt: skip
                raise self.refusal(a, f"{operator_name(a)} in one and {operator_name(b)} in the other")
            places = list(self.numbers(a, b))
            if places and inside:
                raise self.refusal(
                    a,
                    "a number that follows the batch inside a part that is called as a whole, such as code under autocast",
                )
            if places:
                found[a] = places
            self.shapes(a, b)
            if a.op == "get_attr":
                self.parts(a, b)
        if len(left.nodes) != len(right.nodes):
            raise self.refusal(
                None,
                f"{len(left.nodes)} operators in one and {len(right.nodes)} in the other, as in a loop over samples",
            )
        return found

    def parts(self, a: fx.Node, b: fx.Node) -> None:
        """Compare the graphs inside a graph."""
        mine, theirs = (getattr(node.graph.owning_module, str(node.target), None) for node in (a, b))
        if isinstance(mine, fx.GraphModule) and isinstance(theirs, fx.GraphModule):
            self.graphs(mine.graph, theirs.graph, inside=True)

    def numbers(self, a: fx.Node, b: fx.Node) -> Iterator[int]:
        """Yield the positions of multiples of the batch.  Everything else must be equal in both graphs."""
        mine, shape = pytree.tree_flatten((a.args, a.kwargs))
        theirs, other_shape = pytree.tree_flatten((b.args, b.kwargs))
        if shape != other_shape:
            raise self.refusal(a, "different numbers of arguments")
        for place, (x, y) in enumerate(zip(mine, theirs, strict=True)):
            if isinstance(x, fx.Node):
                if self.duplicates.get(x) is not y:
                    raise self.refusal(a, "different tensors as arguments")
            elif type(x) is not type(y) or (x != y and x == x):
                if not (type(x) is int and type(y) is int and self.multiples(x, y)):
                    raise self.refusal(a, f"{x} in one and {y} in the other, which are not multiples of the batch")
                yield place

    def shapes(self, a: fx.Node, b: fx.Node) -> None:
        """Check that every axis of every result is equally long in both graphs, or a multiple of the batch."""
        mine, theirs = (
            [tuple(map(int, v.shape)) for v in pytree.tree_leaves(node.meta.get("val")) if isinstance(v, Tensor)]
            for node in (a, b)
        )
        if len(mine) != len(theirs):
            raise self.refusal(a, f"{len(mine)} results in one and {len(theirs)} in the other")
        for one, other in zip(mine, theirs, strict=True):
            if len(one) != len(other) or not all(
                x == y or self.multiples(x, y) for x, y in zip(one, other, strict=True)
            ):
                raise self.refusal(
                    a, f"shape {one} in one and {other} in the other, which are not multiples of the batch"
                )

    def multiples(self, x: int, y: int) -> bool:
        return x % self.one == 0 and x * self.other == y * self.one

    def refusal(self, node: fx.Node | None, message: str) -> BadNetwork:
        line = "" if node is None else source_of(node) or operator_name(node)
        return BadNetwork(
            f"graph: with {self.one} and {self.other} samples the network runs different code{f' at {line}' if line else ''}: "
            f"{message}. No graph fits all batch sizes; take sizes from the input and do not loop over samples."
        )
