"""Graph: what ran in one forward pass of a network - calls, operators, and the values that passed between them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torch import nn

from cortado.network.graph.record import Call, Event, Operator


@dataclass(frozen=True)
class Graph:
    """One run, made by `trace` and never changed.  Values are numbered: a tensor has a new one once something writes to it.

    `every_call` has the calls by their index; `batch` is the number of samples. `given` and `results` are the values of
    the network's inputs and outputs; `constants` those that do not depend on its inputs, and `owners` the layers (by id)
    that own each parameter and buffer.
    """

    events: tuple[Event, ...]
    every_call: tuple[Call, ...]
    batch: int
    given: frozenset[int]
    results: frozenset[int]
    constants: frozenset[int]
    owners: Mapping[int, frozenset[int]]

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """Return the calls of layers, and of any other module in whose own forward operators ran."""
        return tuple(call for call in self.every_call if call.listed)

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """Return the operators in order, without those that decode weights or round activations."""
        found = (event for event in self.events if isinstance(event, Operator))
        return tuple(one for one in found if not one.decoding and not one.rounding)

    @cached_property
    def readers(self) -> Mapping[int, tuple[Operator, ...]]:
        """Return the operators that read each value."""
        return grouped_by((value, operator) for operator in self.operators for value in operator.reads)

    @cached_property
    def callers(self) -> Mapping[int, tuple[Call, ...]]:
        """Return the calls that take each value as their first tensor."""
        return grouped_by((call.reads[0], call) for call in self.every_call if call.reads)

    def of(self, path: str) -> tuple[Call, ...]:
        """Return the calls of the module at `path`, in order; none if it never ran."""
        return tuple(call for call in self.every_call if path in call.paths)

    def calls_of(self, layer: nn.Module) -> tuple[Call, ...]:
        """Return the calls of a module, in order."""
        return self.by_layer.get(id(layer), ())

    @cached_property
    def by_layer(self) -> Mapping[int, tuple[Call, ...]]:
        """Return the calls of each module, by its id."""
        return grouped_by((id(call.layer), call) for call in self.every_call)

    def made_by(self, layer: nn.Module) -> list[int]:
        """Return the values that a module returns, over all its calls."""
        return [value for call in self.calls_of(layer) for value in call.makes]

    def running(self, operator: Operator) -> int | None:
        """Return the id of the innermost module that ran an operator; None for one outside any."""
        return None if operator.call < 0 else id(self.every_call[operator.call].layer)

    def read_only_by(self, value: int, layer: nn.Module) -> bool:
        """Return whether only operators of a module's own forward read a value, and some do."""
        inside = [self.running(operator) == id(layer) for operator in self.readers.get(value, ())]
        return bool(inside) and all(inside) and value not in self.results

    def keeps_to_itself(self, layer: nn.Module) -> bool:
        """Return whether only a layer itself, or co-owners of tied ones, read its parameters and buffers."""
        own = [value for value, owners in self.owners.items() if id(layer) in owners]
        return all(
            self.running(operator) in self.owners[value] for value in own for operator in self.readers.get(value, ())
        ) and not self.results.intersection(own)


Found = TypeVar("Found")


def grouped_by(pairs: Iterable[tuple[int, Found]]) -> dict[int, tuple[Found, ...]]:
    """Return what belongs to each number, in order and once."""
    found: dict[int, dict[int, Found]] = {}
    for value, one in pairs:
        found.setdefault(value, {})[id(one)] = one
    return {value: tuple(ones.values()) for value, ones in found.items()}
