"""Refused: the first operator of a network that a runtime refuses, found by giving it less and less of the network."""

import bisect
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from cortado.errors import comes_from_system
from cortado.lowering.graph import drop_unread
from cortado.network.graph.axes.step import module_of, operator_name, source_of

Tries = Callable[[fx.GraphModule], Any]
"""Lower and run a part of a network; raises whatever the runtime raises."""


def first_refused(module: fx.GraphModule, tries: Tries) -> fx.Node | None:
    """Return the first operator up to which the runtime refuses a network, in order; None if it refuses no part.

    The search halves the network: it is exact where all longer parts are refused too.
    """
    nodes = [node for node in module.graph.nodes if node.op == "call_function" and can_end(node)]
    at = bisect.bisect_left(nodes, True, key=lambda node: refuses(part_until(module, node), tries))
    return nodes[at] if at < len(nodes) else None


def can_end(node: fx.Node) -> bool:
    """Return whether an operator returns one tensor of floats or complex numbers, as a network may."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def refuses(module: fx.GraphModule, tries: Tries) -> bool:
    """Return whether the runtime refuses a network.  Raises what the system raises: a full disk blames no operator."""
    try:
        tries(module)
    except Exception as error:
        if comes_from_system(error):
            raise
        return True
    return False


def part_until(module: fx.GraphModule, node: fx.Node) -> fx.GraphModule:
    """Return a copy of a graph that ends with one operator and returns its value."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.graph_copy(module.graph, copies)
    graph.output(copies[node])
    made = fx.GraphModule(module, graph)
    drop_unread(made)
    return made


def place_text(node: fx.Node) -> str:
    """Return "slice in layer2.0, resnet.py:51: activation = activation[:, :, ::2, ::2]"."""
    path, line = module_of(node), source_of(node)
    return f"{operator_name(node)}{f' in {path}' if path else ''}{f', {line}' if line else ''}"
