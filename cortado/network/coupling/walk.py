"""Walk: follow every axis of every parameter through a traced network, operator by operator."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from cortado.network.coupling.capture import Captured
from cortado.network.coupling.norms import NORMS
from cortado.network.coupling.products import PRODUCTS, broadcast
from cortado.network.coupling.shapes import SHAPES
from cortado.network.coupling.step import Step, Value, blank, node_shape
from cortado.network.coupling.variables import Axis, Variables

OUTPUT = "an output of the network"

RULES = {**NORMS, **SHAPES, **PRODUCTS}


@dataclass
class Walked:
    """What was found: the activation of every node, and which axes of parameters produce and consume."""

    captured: Captured
    variables: Variables
    known: dict[fx.Node, Value]
    roles: dict[tuple[fx.Node, int], str] = field(default_factory=dict)
    counted: dict[fx.Node, tuple[str, Axis]] = field(default_factory=dict)


def walk_network(captured: Captured) -> Walked:
    """Follow a captured network from its parameters to its outputs.  Whatever is not understood is frozen, by name."""
    variables = Variables()
    walked = Walked(captured, variables, {})
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            # A tensor that two layers share may have a placeholder for each.
            mine = captured.tensors.get(node)
            same = next((n for n in walked.known if mine and captured.tensors.get(n) == mine), None)
            walked.known[node] = entering(captured, variables, node) if same is None else walked.known[same]
        elif node.op == "call_function":
            walked.known[node] = axes_after(Step(node, variables, walked.known, walked.roles, walked.counted))
        elif node.op == "output":
            for leaving in node.all_input_nodes:
                for axis_list in axis_lists_of(walked.known.get(leaving)):
                    for axis in axis_list:
                        variables.freeze(axis, OUTPUT)
        else:
            walked.known[node] = blank(node)
    return walked


def entering(captured: Captured, variables: Variables, node: fx.Node) -> Value:
    """Parameters and buffers: every axis may lose entries.  Inputs of the network: none."""
    if node not in captured.tensors:
        return blank(node)
    axis_list: Value = [variables.fresh(size) if size > 1 else None for size in node_shape(node)]
    names = captured.tensors[node]
    if not any(duplicate.users for duplicate, theirs in captured.tensors.items() if theirs == names):
        for axis in axis_list:  # type: ignore[union-attr]
            variables.freeze(axis, "never used when the network runs")  # type: ignore[arg-type]
    return axis_list


def axes_after(step: Step) -> Value:
    """The activations an operator gives."""
    if getattr(step.node.target, "__name__", "") == "getitem":
        return picked(step, *step.node.args)
    if not isinstance(step.node.target, torch._ops.OpOverload):
        return step.blocked()
    rule = RULES.get(step.name)
    try:
        if rule is not None:
            return fitting_axes(step, rule(step))
        if pointwise(step.node.target):
            return fitting_axes(step, entry_wise(step))
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError):
        # An unusual way to call a known operator is no better known than an unknown operator.
        return step.blocked()
    return step.blocked()


def picked(step: Step, source: Any, place: Any) -> Value:
    """One of several outputs; where only one activation is known of them all, it says nothing of each."""
    found: Any = step.known.get(source)
    if found and isinstance(found[0], list) and isinstance(place, int) and place < len(found):
        return found[place]
    for axis_list in axis_lists_of(found):
        step.freeze(*axis_list)
    return blank(step.node)


def fitting_axes(step: Step, found: Value) -> Value:
    """`found`, if it has the axes that the operator's output has; otherwise the rule does not fit this call."""
    if found is None or (found and isinstance(found[0], list)):
        return found
    sizes = [(axis, size) for axis, size in zip(found, step.shape, strict=True) if axis is not None]
    if any(len(axis) != size for axis, size in sizes):  # type: ignore[arg-type]
        raise ValueError(f"{step.name} gave axes that its output does not have")
    return found


def entry_wise(step: Step) -> Value:
    """Every entry alone: right-aligned axes of equal size are joined."""
    given = [(part.axis_list, part.shape) for part in step.tensors()]
    # In place, the output is the first tensor and no larger.
    out = broadcast(step, given)
    return [None] * (len(step.shape) - len(out)) + out


def pointwise(operator: Any) -> bool:
    """Whether an operator treats every entry alone; one that works in place does what its copy does."""
    if torch.Tag.pointwise in operator.tags:
        return True
    name = operator._schema.name.split("::")[-1]
    if name.endswith("_") and not name.endswith("__"):
        duplicate = getattr(torch.ops.aten, name[:-1], None)
        overload = getattr(duplicate, operator._overloadname, None) if duplicate is not None else None
        return overload is not None and torch.Tag.pointwise in overload.tags
    return False


def axis_lists_of(value: Value) -> list[list[Any]]:
    """The activations of a node as a list of them."""
    if value is None:
        return []
    return list(value) if value and isinstance(value[0], list) else [value]  # type: ignore[list-item, arg-type]
