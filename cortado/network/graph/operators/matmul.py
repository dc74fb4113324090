"""Matrix products: linear layers, products of activations, einsum and bilinear layers."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from torch import nn

from cortado.layers.roles import MATMUL
from cortado.network.graph.axes.step import Step, Value, broadcast, node_shape
from cortado.network.graph.axes.variables import Axis
from cortado.network.graph.operators.facts import known
from cortado.network.graph.record import Operator


def linear(step: Step) -> Value:
    """Follow x (..., k), weight (n, k), bias (n)."""
    x, weight, bias = step.tensor("input"), step.tensor("weight"), step.tensor("bias")
    assert x is not None and weight is not None
    step.role(weight, 1, "consumer")
    step.role(weight, 0, "producer")
    step.join(x.axis_list[-1], weight.axis_list[-1])
    if not weight.is_weight:
        step.absorbs(x.axis_list[-1])
    if bias is not None:
        step.lifts(*x.axis_list[:-1])
    out = weight.axis_list[0] if len(weight) == 2 else None
    if bias is not None and len(bias):
        step.join(out, bias.axis_list[0])
    return [*x.axis_list[:-1], out] if len(weight) == 2 else x.axis_list[:-1]


def matrix_product(step: Step) -> Value:
    """Follow (..., n, k) times (..., k, m): inner axes are joined, outer axes pass, batch axes are joined."""
    added = step.tensor("bias") or (step.tensor("self") if step.name.startswith(("addmm", "baddbmm")) else None)
    left = step.tensor("mat1") or step.tensor("batch1") or step.tensor("self")
    right = next(filter(None, (step.tensor(name) for name in ("mat2", "batch2", "other", "vec", "tensor"))), None)
    assert left is not None and right is not None
    a, b = left.axis_list, right.axis_list
    step.role(left, len(a) - 1, "consumer")
    step.role(right, max(0, len(b) - 2), "consumer")
    step.role(right, len(b) - 1, "producer")
    step.join(a[-1], b[-2] if len(b) > 1 else b[0])
    if not right.is_weight:
        step.absorbs(a[-1])
    rows = a[-2:-1] if len(a) > 1 else []
    columns = b[-1:] if len(b) > 1 else []
    batches = broadcast(step, [(a[:-2], left.shape[:-2]), (b[:-2], right.shape[:-2])])
    for axis in batches:
        step.heads(axis)
    out = [*batches, *rows, *columns]
    if added is not None and len(added):
        step.lifts(*batches, *rows)
        out = broadcast(step, [(out, step.shape), (added.axis_list, added.shape)])
    return out


def einsum(step: Step) -> Value:
    """Join axes with the same letter."""
    equation = str(step.arg("equation")).replace(" ", "")
    entering, _, leaving = equation.partition("->")
    if "." in equation or not leaving and "->" not in equation:
        return step.blocked()
    axes: dict[str, Axis] = {}
    nodes = step.arg("tensors")
    for letters, node in zip(entering.split(","), nodes, strict=True):
        for letter, axis, size in zip(letters, step.axis_list_of(node), node_shape(node), strict=True):
            if letter in axes and size > 1:
                step.join(axes[letter], axis)
            axes[letter] = axes.get(letter) if axes.get(letter) is not None else axis
    step.absorbs(*(axis for letter, axis in axes.items() if letter not in leaving))
    return [axes[letter] for letter in leaving]


def product_cost(first: int, second: int) -> Callable[[Operator], int]:
    """Return a counter for (..., n, k) times (..., k, m), the arguments at `first` and `second`."""

    def count(operator: Operator) -> int:
        left, right = operator.arguments[first], operator.arguments[second]
        return prod(left) * (right[-1] if len(right) > 1 else 1)

    return count


def linear_cost(operator: Operator) -> int:
    """Count (input (..., k), weight (m, k), ...)."""
    return prod(operator.arguments[0]) * operator.arguments[1][0]


def bilinear(operator: Operator) -> int:
    """Count aten._trilinear as nn.Bilinear calls it: (left (N, I), weight (O, I, J), right (N, J), ...)."""
    samples, (outputs, left, right) = operator.arguments[0][0], operator.arguments[1]
    # The weight is multiplied with the left input, and the result with the right input.
    return samples * outputs * right * (left + 1)


def linear_layer(step: Step, shapes: Mapping[str, Any], owner: nn.Module | None) -> nn.Module | None:
    """Build a layer from weight (n, k)."""
    if len(shapes["weight"]) != 2:
        return None
    out, given = shapes["weight"]
    return nn.Linear(given, out, "bias" in shapes, device="meta")


OPERATORS = (
    known("linear", role=MATMUL, axes=linear, cost=linear_cost, layer=linear_layer)
    | known("mkldnn_linear", role=MATMUL, cost=linear_cost)
    | known("mm", role=MATMUL, axes=matrix_product, cost=product_cost(0, 1))
    | known("matmul bmm", axes=matrix_product, cost=product_cost(0, 1), homogeneous=(1,))
    | known("mv dot", axes=matrix_product, cost=product_cost(0, 1))
    | known("vdot _int_mm", cost=product_cost(0, 1))
    | known("addmm", role=MATMUL, axes=matrix_product, cost=product_cost(1, 2))
    | known("baddbmm", axes=matrix_product, cost=product_cost(1, 2))
    | known("addmv addbmm _addmm_activation", cost=product_cost(1, 2))
    | known("einsum", axes=einsum)
    | known("_trilinear", cost=bilinear)
)
