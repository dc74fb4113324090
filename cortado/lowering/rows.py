"""Rows: what only the chosen rows of a traced network need runs for them alone, in PyTorch.

The same as `cortado/runtimes/rows.py` does for ONNX graphs: gather the chosen rows, run the rest on them, put the result
back. The graph then asks for sizes that depend on values, so that PyTorch can run it but not trace it again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from cortado.parts.blocks.rows import ChooseRows

CLASS = f"{ChooseRows.__module__}.{ChooseRows.__qualname__}"
MASK, CHOSEN, OTHERWISE = 0, 1, 2


def run_chosen_rows(network: fx.GraphModule) -> int:
    """Rewrite the choices of rows of a graph module, in place, and return how many there were."""
    graph = network.graph
    found = [node for node in reversed(list(graph.nodes)) if is_row_choice(node)]
    for choice in found:
        inside = served_only_by(choice)
        if inside:
            gather_rows(graph, choice, inside)
    graph.lint()
    network.recompile()
    return len(found)


def is_row_choice(node: fx.Node) -> bool:
    """Return whether a node is the one of ChooseRows."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return node.target is torch.ops.aten.where.self and bool(stack) and CLASS in str(stack[-1][1])


def served_only_by(choice: fx.Node) -> list[fx.Node]:
    """Return the nodes whose values only the chosen rows of a choice need, in order."""
    inside: set[fx.Node] = set()
    args = choice.args
    for node in reversed(list(choice.graph.nodes)):
        own = node is args[CHOSEN] and node not in (args[MASK], args[OTHERWISE])
        serves = all(user in inside or user is choice and own for user in node.users)
        if node.op not in ("placeholder", "output", "get_attr") and node.users and serves:
            inside.add(node)
    return [node for node in choice.graph.nodes if node in inside]


def gather_rows(graph: fx.Graph, choice: fx.Node, inside: Sequence[fx.Node]) -> None:
    """Run nodes on the chosen rows alone, and put their result among what the other rows get."""
    mask, chosen, otherwise = (choice.args[place] for place in (MASK, CHOSEN, OTHERWISE))
    assert isinstance(mask, fx.Node)
    rows = mask.meta["val"].shape[0]
    with graph.inserting_before(choice):
        flat = graph.call_function(torch.ops.aten.view.default, (mask, [-1]))
        places = graph.call_function(torch.ops.aten.nonzero.default, (flat,))
        index = graph.call_function(torch.ops.aten.view.default, (places, [-1]))
    known: dict[fx.Node, Any] = {}

    def taken(value: fx.Node) -> Any:
        if value not in known:
            known[value] = made(value)
        return known[value]

    def made(value: fx.Node) -> Any:
        given = value.meta.get("val")
        with graph.inserting_before(choice):
            if isinstance(given, (torch.SymInt, torch.SymFloat)):
                return graph.node_copy(value, taken)
            if isinstance(given, Tensor) and given.dim() and given.shape[0] == rows and value.op != "get_attr":
                picked = graph.call_function(torch.ops.aten.index_select.default, (value, 0, index))
                picked.meta["val"] = given
                return picked
        return value

    own = set(inside)
    for node in inside:
        for value in list(node.all_input_nodes):
            if value not in own:
                node.replace_input_with(value, taken(value))
    for node in inside:
        # After the mask, which may have been computed later.
        choice.prepend(node)
    with graph.inserting_before(choice):
        result = graph.call_function(torch.ops.aten.index_copy.default, (otherwise, 0, index, chosen))
    result.meta = dict(choice.meta)
    choice.replace_all_uses_with(result)
    graph.erase_node(choice)
