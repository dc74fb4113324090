"""Answers: what a network that can stop early gives at each of its exits, and what it has computed by then."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.layers.factors import factored_copy
from cortado.network.graph.graph import Graph
from cortado.network.graph.operators.table import multiply_adds
from cortado.network.graph.record import Operator
from cortado.network.graph.trace import trace
from cortado.parts.blocks.rows import FirstSure
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device


def multiply_adds_so_far(
    network: nn.Module, example: Any, batch: int | None = None
) -> dict[str, tuple[float | None, ...]]:
    """Return the multiply-adds per sample up to each answer of every FirstSure, earliest first, by its path.

    Counted is what the answers so far need, and nothing that only later ones do. `example` and `batch` are those of
    `profile`. None from the first answer on that needs an operator of unknown cost. Raises BadNetwork for a network without
    a FirstSure.
    """
    runner = factored_copy(network)
    places = chosen_among(runner)
    graph = trace(runner, example, batch)
    return {
        path: tuple(costs_in_turn(graph, graph.calls_of(one)[0].reads))
        for path, one in places.items()
        if graph.calls_of(one)
    }


def costs_in_turn(graph: Graph, answers: Iterable[int]) -> Iterable[float | None]:
    """Yield the multiply-adds per sample that each value and all those before it need."""
    makers = {value: operator for operator in graph.operators for value in operator.makes}
    done: set[int] = set()
    total: float | None = 0
    for answer in answers:
        for operator in needed_for(answer, makers, done):
            cost = multiply_adds(operator)
            total = None if total is None or cost is None else total + cost
        yield None if total is None else total / graph.batch


def needed_for(answer: int, makers: dict[int, Operator], done: set[int]) -> list[Operator]:
    """Return the operators that a value needs and that are not done yet, and note them (by id) as done."""
    found, waiting = [], [answer]
    while waiting:
        operator = makers.get(waiting.pop())
        if operator is not None and id(operator) not in done:
            done.add(id(operator))
            found.append(operator)
            waiting += operator.reads
    return found


def answers_on(network: nn.Module, batches: Iterable[Any], path: str | None = None) -> Tensor:
    """Return all answers among which a FirstSure chooses, (answers, samples, classes, ...), in eval mode on the CPU.

    `batches` yields inputs. `path` is that of the FirstSure, by default the only one. Raises BadNetwork if there is none at
    that path, or several without a path.
    """
    places = chosen_among(network)
    if path is None and len(places) > 1 or path is not None and path not in places:
        raise BadNetwork(
            f"profile/answers: say which answers: the network chooses among some at {', '.join(places)}, got {path!r}."
        )
    found: list[Tensor] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(torch.stack(given).detach().float().cpu())

    handle = places[next(iter(places)) if path is None else path].register_forward_pre_hook(note)
    try:
        with eval_mode(network), torch.no_grad():
            for inputs in batches:
                call(network, to_device(inputs, own_device(network)))
    finally:
        handle.remove()
    return torch.cat(found, 1)


def chosen_among(network: nn.Module) -> dict[str, FirstSure]:
    """Return the places where a network chooses among answers, by path.  Raises BadNetwork if there are none."""
    found = {path: module for path, module in network.named_modules() if isinstance(module, FirstSure)}
    if not found:
        raise BadNetwork(
            f"profile/answers: {type(network).__name__} has one answer only. Bring a network with a FirstSure, such as msdnet."
        )
    return found
