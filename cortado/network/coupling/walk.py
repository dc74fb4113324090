"""Walk: follow every axis of every parameter through a traced network, operator by operator."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from cortado.network.coupling.capture import Captured
from cortado.network.graph.axes.step import Step, Value, axis_lists_of, blank, node_shape
from cortado.network.graph.axes.variables import Axis, Variables
from cortado.network.graph.operators.elementwise import entry_wise
from cortado.network.graph.operators.table import operator_facts

OUTPUT = "an output of the network"


@dataclass
class Walked:
    """The result: the axes of every node, and which axes of parameters produce and consume."""

    captured: Captured
    variables: Variables
    known: dict[fx.Node, Value]
    roles: dict[tuple[fx.Node, int], str] = field(default_factory=dict)
    counted: dict[fx.Node, tuple[str, Axis]] = field(default_factory=dict)


def walk_network(captured: Captured) -> Walked:
    """Follow a captured network from its parameters to its outputs.  Freeze whatever is not understood, by name."""
    variables = Variables()
    walked = Walked(captured, variables, {})
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            # A tensor that two layers share may have two placeholders.
            mine = captured.tensors.get(node)
            same = next((n for n in walked.known if mine and captured.tensors.get(n) == mine), None)
            walked.known[node] = placeholder_axes(captured, variables, node) if same is None else walked.known[same]
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


def placeholder_axes(captured: Captured, variables: Variables, node: fx.Node) -> Value:
    """Return the axes of a placeholder: any axis of a parameter or buffer may lose entries, none of an input."""
    if node not in captured.tensors:
        return blank(node)
    ties = captured.ties.get(node, {})
    axis_list: Value = [
        tied_axis(variables, size, ties.get(place)) if size > 1 else None for place, size in enumerate(node_shape(node))
    ]
    names = captured.tensors[node]
    if not any(duplicate.users for duplicate, theirs in captured.tensors.items() if theirs == names):
        for axis in axis_list:  # type: ignore[union-attr]
            variables.freeze(axis, "never used when the network runs")  # type: ignore[arg-type]
    return axis_list


def tied_axis(variables: Variables, size: int, ties: Tensor | None) -> np.ndarray:
    """Return a new axis; indices with equal `ties` have one variable, and are only cut together."""
    if ties is None:
        return variables.fresh(size)
    distinct, places = np.unique(ties.cpu().numpy(), return_inverse=True)
    return variables.fresh(len(distinct))[places]


def axes_after(step: Step) -> Value:
    """Return the axes of an operator's output."""
    if getattr(step.node.target, "__name__", "") == "getitem":
        return item_axes(step, *step.node.args)
    if not isinstance(step.node.target, torch._ops.OpOverload):
        return step.blocked()
    facts = operator_facts(step.name)
    rule = facts.axes or (entry_wise if pointwise(step.node.target) else None)
    try:
        if rule is not None:
            found = axes_of_output(step, rule(step))
            if facts.lifts_zero or facts.axes is None:
                step.lifts(*(axis for axis_list in axis_lists_of(found) for axis in axis_list))
            return found
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError):
        # An unusual call of a known operator counts as unknown.
        return step.blocked()
    return step.blocked()


def item_axes(step: Step, source: Any, place: Any) -> Value:
    """Return the axes of one of several outputs; blank where only one tensor's axes are known for them all."""
    found: Any = step.known.get(source)
    if found and isinstance(found[0], list) and isinstance(place, int) and place < len(found):
        return found[place]
    for axis_list in axis_lists_of(found):
        step.freeze(*axis_list)
    return blank(step.node)


def axes_of_output(step: Step, found: Value) -> Value:
    """Return `found` if it has the axes of the operator's output; otherwise the rule does not fit this call."""
    if found is None or (found and isinstance(found[0], list)):
        return found
    sizes = [(axis, size) for axis, size in zip(found, step.shape, strict=True) if axis is not None]
    if any(len(axis) != size for axis, size in sizes):  # type: ignore[arg-type]
        raise ValueError(f"{step.name} gave axes that its output does not have")
    return found


def pointwise(operator: Any) -> bool:
    """Return whether an operator is elementwise; in-place ones count as their out-of-place versions."""
    if torch.Tag.pointwise in operator.tags:
        return True
    name = operator._schema.name.split("::")[-1]
    if name.endswith("_") and not name.endswith("__"):
        duplicate = getattr(torch.ops.aten, name[:-1], None)
        overload = getattr(duplicate, operator._overloadname, None) if duplicate is not None else None
        return overload is not None and torch.Tag.pointwise in overload.tags
    return False
