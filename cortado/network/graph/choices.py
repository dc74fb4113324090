"""Choices: which layers of a network run only for some rows, and what each choice of rows is called."""

from dataclasses import dataclass

from torch import nn

from cortado.network.graph.graph import Graph
from cortado.network.graph.record import Operator
from cortado.parts.blocks.rows import ChooseRows, FirstSure

CHOSEN = 1
"""The place of what is chosen among the tensors that a choice reads."""


@dataclass(frozen=True, eq=False)
class Choice:
    """A choice of rows that ran: its module, and the ids of the modules of which every operator only serves chosen rows."""

    module: ChooseRows
    inside: frozenset[int]


def choices_in(graph: Graph) -> list[Choice]:
    """Return the choices of a run in order."""
    found = []
    for operator in graph.operators:
        layer = None if operator.call < 0 else graph.every_call[operator.call].layer
        if isinstance(layer, ChooseRows) and operator.short_name == "where":
            found.append(Choice(layer, modules_inside(graph, only_for(graph, operator))))
    return found


def only_for(graph: Graph, choice: Operator) -> set[int]:
    """Return the ids of the operators whose values only the chosen rows of a choice need; those that nothing needs count."""
    inside: set[int] = set()
    chosen = choice.reads[CHOSEN]
    elsewhere = {value for place, value in enumerate(choice.reads) if place != CHOSEN}
    for operator in reversed(graph.operators):
        read = [(value, reader) for value in operator.makes for reader in graph.readers.get(value, ())]
        serves = all(
            id(reader) in inside or reader is choice and value == chosen and value not in elsewhere
            for value, reader in read
        )
        if serves and not graph.results.intersection(operator.makes):
            inside.add(id(operator))
    return inside


def modules_inside(graph: Graph, operators: set[int]) -> frozenset[int]:
    """Return the ids of the modules whose own operators are all among these."""
    own: dict[int, list[bool]] = {}
    for operator in graph.operators:
        running = graph.running(operator)
        if running is not None:
            own.setdefault(running, []).append(id(operator) in operators)
    return frozenset(layer for layer, inside in own.items() if all(inside))


def choice_names(network: nn.Module) -> dict[str, ChooseRows]:
    """Return the choices of a network by what runs only for their rows: a block's path, or "what follows answer 1"."""
    modules = dict(network.named_modules())
    found: dict[str, ChooseRows] = {}
    for path, module in modules.items():
        if not isinstance(module, ChooseRows):
            continue
        parent, _, name = path.rpartition(".")
        around, _, listed = parent.rpartition(".")
        sure = modules.get(around)
        if listed == "choices" and isinstance(sure, FirstSure):
            owner = around.rpartition(".")[0]
            answer = f"answer {int(name) + 1}{f' of {owner}' if owner else ''}"
            answer = owner if owner and len(sure.choices) == 1 else answer
            found[f"what follows {answer}"] = module
        else:
            found[path if isinstance(modules.get(parent), nn.ModuleList) else parent or path] = module
    return found
