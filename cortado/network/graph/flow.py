"""Flow: which values pass between operators in one run, and at which layers each of them is an input or output.

Operators inside a layer of a known kind are one step.
"""

import math
from dataclasses import dataclass, field

from torch import nn

from cortado.layers.kinds import kind_of, role_of
from cortado.layers.roles import CLIP, MATMUL, NORM
from cortado.network.graph.graph import Graph
from cortado.network.graph.record import Begun, Call, Operator
from cortado.parts.activations.quantizer import INPUT, OUTPUT

STEPS = (MATMUL, NORM, CLIP)
"""Roles of layers that count as one step."""


@dataclass(frozen=True)
class FlowStep:
    """One operator, or one layer of a known kind: its effect, its values, and the innermost module that ran it."""

    kind: str
    name: str
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    below: float = 1.0
    """The factor on values below zero: 0 for a ReLU, the slope of a leaky ReLU, else 1."""
    homogeneous: tuple[int, ...] = ()
    """The inputs of which a positive factor on a channel passes unchanged, if no other input has it."""
    floor: float = -math.inf
    """Inputs below it give what it gives."""

    @property
    def above_zero(self) -> bool:
        """Return whether nothing below zero passes."""
        return self.below == 0


@dataclass
class Flow:
    """The steps in order; `places` lists where each value passes: (path of the module, side)."""

    given: frozenset[int]
    """The network's inputs."""
    results: frozenset[int]
    """The network's outputs."""
    steps: list[FlowStep] = field(default_factory=list)
    places: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def readers(self) -> dict[int, list[FlowStep]]:
        """Return the steps that read each value, in order."""
        found: dict[int, list[FlowStep]] = {}
        for step in self.steps:
            for value in dict.fromkeys(step.inputs):
                found.setdefault(value, []).append(step)
        return found


def flow_of(graph: Graph) -> Flow:
    """Return the values that passed between steps in a run, those of weights alone left out."""
    flow, inside = Flow(graph.given, graph.results), 0
    for event in graph.events:
        if isinstance(event, Operator):
            reads = tuple(value for value in event.reads if value not in graph.constants)
            if not inside and not event.rounding and (reads or not event.reads):
                path = graph.every_call[event.call].path if event.call >= 0 else ""
                name = event.name.split(".")[1]
                passing = tuple(event.reads[place] for place in event.homogeneous if place < len(event.reads))
                flow.steps.append(
                    FlowStep(event.role, name, path, reads, event.makes, event.below, passing, event.floor)
                )
            continue
        call = graph.every_call[event.call]
        known = step_role(call.layer) is not None
        read = next((value for value in call.reads if value not in graph.constants), None)
        if isinstance(event, Begun):
            flow.calls[call.path] = flow.calls.get(call.path, 0) + 1
            if read is not None and not inside:
                flow.places.setdefault(read, []).append((call.path, INPUT))
            inside += known
            continue
        inside -= known
        if call.tensor and not inside:
            if known:
                flow.steps.append(layer_step(call, read))
            flow.places.setdefault(call.makes[0], []).append((call.path, OUTPUT))
    return flow


def layer_step(call: Call, read: int | None) -> FlowStep:
    """Return the step of a layer of a known kind."""
    kind = kind_of(call.layer)
    assert kind is not None
    inputs = () if read is None else (read,)
    passing = inputs if kind.homogeneous else ()
    return FlowStep(kind.role, call.kind, call.path, inputs, call.makes, kind.below(call.layer), passing)


def step_role(module: nn.Module) -> str | None:
    """Return the role of a layer that counts as one step."""
    role = role_of(module)
    return role if role in STEPS else None
