"""Split: the points where a network can be cut in two, one part on a device and one elsewhere, with the cost of each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from cortado.lowering.graph import graph_of, one_sample
from cortado.lowering.lower import lowered
from cortado.network.graph.trace import device_of
from cortado.quantities import size_text, time_text
from cortado.running.brought import accept
from cortado.running.call import call_arguments
from cortado.running.trees import tensors_in, to_device
from cortado.runtimes.timing import check_load
from cortado.table import aligned

ROUNDS, WARM_UP = 15, 3


@dataclass(frozen=True)
class SplitPoint:
    """A point where a single tensor is alive: `after` is the module that made it, "" for the network's input.

    `size_bytes` is that tensor's size for one sample; `before_ms` and `after_ms` are the times of the two sides for one
    sample in PyTorch, sums of the median times of their operators.
    """

    after: str
    operator: str
    shape: tuple[int, ...]
    size_bytes: int
    before_ms: float
    after_ms: float


@dataclass(frozen=True)
class Cuts:
    """All cuts, from the input to the output."""

    cuts: tuple[SplitPoint, ...]
    threads: int

    def text(self) -> str:
        """Return a table with a row for each cut."""
        lines = [("cut after", "operator", "to send", "time before", "time after")]
        for cut in self.cuts:
            name = cut.after or ("(input)" if cut.operator == "input" else "(network)")
            lines.append(
                (name, cut.operator, size_text(cut.size_bytes), time_text(cut.before_ms), time_text(cut.after_ms))
            )
        note = f"One sample, threads {self.threads}, in PyTorch; both sides timed on this machine."
        return "\n".join([aligned(lines, "<<>"), "", note, "The last row sends the output."])


class Timer(fx.Interpreter):
    """Runs a graph and records the milliseconds and the value of every node."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.taken: dict[fx.Node, list[float]] = {}
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        start = time.perf_counter()
        value = super().run_node(n)
        self.taken.setdefault(n, []).append((time.perf_counter() - start) * 1000)
        self.values[n] = value
        return value


def find_cuts(network: nn.Module, example: Any, threads: int = 1, rounds: int = ROUNDS) -> Cuts:
    """Return the points where the lowered network can be cut with one tensor to send, in order.

    Of cuts that differ only by operators without weights (an activation, pooling) only the last is listed.
    Raises BadNetwork if torch.export cannot trace the network, BadValue for less than one thread.
    """
    accept(network, "split")
    check_load("split", (1,), threads)
    graph = graph_of(lowered(network, example), example)
    positional, named = call_arguments(to_device(one_sample(example), device_of(graph)))
    timer = Timer(graph)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            for _ in range(WARM_UP + rounds):
                timer.run(*positional, *named.values())
    finally:
        torch.set_num_threads(before)
    return Cuts(tuple(cuts_of(graph, timer)), threads)


def cuts_of(graph: fx.GraphModule, timer: Timer) -> list[SplitPoint]:
    """Return the cuts of a graph: where one tensor is alive and a weight or the output comes next."""
    nodes = list(graph.graph.nodes)
    place = {node: number for number, node in enumerate(nodes)}
    took = {node: float(np.median(times[WARM_UP:])) for node, times in timer.taken.items()}
    working = [node for node in nodes if node.op not in ("get_attr", "placeholder", "output")]
    whole = sum(took[node] for node in working)
    values = {node: tensors_in(timer.values[node]) for node in nodes if node.op != "get_attr"}
    activations = {node: tensors for node, tensors in values.items() if tensors}
    last_use = {node: max((place[user] for user in node.users), default=-1) for node in activations}
    found: list[SplitPoint] = []
    spent = 0.0
    for number, node in enumerate(nodes):
        spent += took[node] if node in working else 0.0
        if node.op in ("get_attr", "output"):
            continue
        alive = [other for other in activations if place[other] <= number < last_use[other]]
        if len(alive) == 1 and len(activations[alive[0]]) == 1 and not later_is_as_good(alive[0], nodes[number + 1 :]):
            found.append(cut_at(alive[0], activations[alive[0]][0], spent, whole - spent))
    return found


def later_is_as_good(node: fx.Node, following: Sequence[fx.Node]) -> bool:
    """Return whether the next operator has no weights, so that a cut after it is as good; the input is always listed."""
    if node.op == "placeholder":
        return False
    coming = next(other for other in following if other.op != "get_attr")
    return coming.op != "output" and not any(given.op == "get_attr" for given in coming.all_input_nodes)


def cut_at(node: fx.Node, value: Tensor, before_ms: float, after_ms: float) -> SplitPoint:
    """Return the cut after a node."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    operator = "input" if node.op == "placeholder" else str(node.target).removeprefix("aten.").partition(".")[0]
    path = stack[-1][0] if stack else ""
    return SplitPoint(
        path, operator, tuple(value.shape), value.numel() * value.element_size(), before_ms, max(0.0, after_ms)
    )
