"""Matmul layers: channels through linear layers, convolutions, matrix products, attention and recurrent layers."""

import numpy as np
from torch import fx

from cortado.network.coupling.moves import AxisList
from cortado.network.coupling.step import Input, Step, Value, node_shape
from cortado.network.coupling.variables import Axis

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def linear(step: Step) -> Value:
    """Follow x (..., k), weight (n, k), bias (n)."""
    x, weight, bias = step.tensor("input"), step.tensor("weight"), step.tensor("bias")
    assert x is not None and weight is not None
    step.role(weight, 1, "consumer")
    step.role(weight, 0, "producer")
    step.join(x.axis_list[-1], weight.axis_list[-1])
    out = weight.axis_list[0] if len(weight) == 2 else None
    if bias is not None and len(bias):
        step.join(out, bias.axis_list[0])
    return [*x.axis_list[:-1], out] if len(weight) == 2 else x.axis_list[:-1]


def convolution(step: Step) -> Value:
    """Follow x (N, C, ...), weight (O, C / g, ...), bias (O); transposed: weight (C, O / g, ...).

    With g groups C is (group, inner) and O is (group, outer); a depthwise convolution has no inner.
    """
    x, weight, bias = step.tensor("input"), step.tensor("weight"), step.tensor("bias")
    assert x is not None and weight is not None
    transposed, groups = "transpose" in step.name, int(step.arg("groups", 1))
    batched = len(x) == len(weight)
    channel = 1 if batched else 0
    step.freeze(*x.axis_list[channel + 1 :])
    step.keep_whole(*weight.axis_list[2:])
    step.role(weight, 0, "consumer" if transposed else "producer")
    step.role(weight, 1, "producer" if transposed else "consumer")
    given = weight.axis_list[0] if transposed else weight.axis_list[1]
    made = weight.axis_list[1] if transposed else weight.axis_list[0]
    if groups > 1:
        given, made = grouped(step, x, weight, given, made, groups, transposed)
    step.join(x.axis_list[channel], given)
    if bias is not None:
        step.join(made, bias.axis_list[0])
    return [*x.axis_list[:channel], made, *([None] * (len(weight) - 2))]


def grouped(
    step: Step, x: Input, weight: Input, given: Axis, made: Axis, groups: int, transposed: bool
) -> tuple[Axis, Axis]:
    """Return a grouped convolution's input and output channels as products of groups and inner channels."""
    variables = step.variables
    family = variables.fresh(groups)
    step.counts("groups", family)

    def times(inner: Axis, size: int) -> Axis:
        rows = np.repeat(family, size, 0)
        return rows if inner is None else np.concatenate([rows, np.tile(inner, (groups, 1))], 1)

    if transposed:
        outer = variables.resolve(weight.axis_list[1])
        inside = variables.fresh(len(given) // groups) if given is not None and len(given) > groups else None
        entering = times(inside, max(1, node_shape(weight.node)[0] // groups))
        step.join(given, entering)
        return entering, times(outer, node_shape(weight.node)[1])
    inner = variables.resolve(weight.axis_list[1])
    outer = variables.fresh(len(made) // groups) if made is not None and len(made) > groups else None
    leaving = times(outer, max(1, node_shape(weight.node)[0] // groups))
    step.join(made, leaving)
    return times(inner, node_shape(weight.node)[1]), leaving


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
    rows = a[-2:-1] if len(a) > 1 else []
    columns = b[-1:] if len(b) > 1 else []
    batches = broadcast(step, [(a[:-2], left.shape[:-2]), (b[:-2], right.shape[:-2])])
    for axis in batches:
        step.heads(axis)
    out = [*batches, *rows, *columns]
    if added is not None and len(added):
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
    return [axes[letter] for letter in leaving]


def broadcast(step: Step, given: list[tuple[AxisList, tuple[int, ...]]]) -> AxisList:
    """Join right-aligned axes of equal size; those of size 1 follow the others."""
    rank = max(len(axis_list) for axis_list, _ in given)
    out: AxisList = []
    for place in range(-rank, 0):
        here = [(s[place], shape[place]) for s, shape in given if len(s) >= -place and shape[place] != 1]
        for axis, _ in here[1:]:
            step.join(here[0][0], axis)
        out.append(next((axis for axis, _ in here if axis is not None), None))
    return out


def attention(step: Step) -> Value:
    """Follow query (..., h, l, e), key (..., h, s, e), value (..., h, s, v): join e, inexact without an explicit
    scale.
    """
    q, k, v, mask = (step.tensor(name) for name in ("query", "key", "value", "attn_mask"))
    assert q is not None and k is not None and v is not None
    step.join(q.axis_list[-1], k.axis_list[-1])
    if step.arg("scale") is None:
        step.inexact(q.axis_list[-1])
    step.freeze(q.axis_list[-2], k.axis_list[-2], v.axis_list[-2])
    heads, heads_read = q.axis_list[-3] if len(q) > 3 else None, k.axis_list[-3] if len(k) > 3 else None
    if heads is not None and q.shape[-3] != k.shape[-3]:
        repeat = q.shape[-3] // k.shape[-3]
        own = step.variables.fresh(k.shape[-3]) if k.shape[-3] > 1 else None
        again = np.tile(step.variables.fresh(repeat), (k.shape[-3], 1))
        if own is not None:
            step.join(own, heads_read)
            again = np.concatenate([np.repeat(own, repeat, 0), again], 1)
        step.join(heads, again)
        step.heads(own)
    alike = [q, k] if len(q) > 3 and q.shape[-3] == k.shape[-3] else [q]
    batches = broadcast(step, [(given.axis_list[:-2], given.shape[:-2]) for given in alike])
    if len(v) > 3 and k.shape[-3] == v.shape[-3]:
        step.join(heads_read, v.axis_list[-3])
    step.heads(heads)
    if mask is not None:
        broadcast(step, [(batches, q.shape[:-2]), (mask.axis_list[:-2], mask.shape[:-2])])
        step.freeze(*mask.axis_list[-2:])
    return [*batches, None, v.axis_list[-1]]


def recurrent(step: Step) -> Value:
    """Follow LSTM, GRU and plain recurrent layers: gates x hidden; one hidden width for all levels and directions."""
    params = step.arg("params")
    x, both = step.tensor("input"), bool(step.arg("bidirectional"))
    assert x is not None
    gates = GATES[step.name]
    names = 4 if step.arg("has_biases") else 2
    if len(params) % names or node_shape(params[1])[0] != gates * node_shape(params[1])[1]:
        return step.blocked()
    width = node_shape(params[1])[1]
    hidden = step.variables.fresh(width)
    below, directions = x.axis_list[-1], 2 if both else 1
    for start in range(0, len(params), names * directions):
        for way in range(directions):
            cell: list[fx.Node] = params[start + way * names : start + (way + 1) * names]
            reads, state = step.axis_list_of(cell[0]), step.axis_list_of(cell[1])
            step.join(below, reads[1])
            step.join(hidden, state[1])
            for node in cell:
                step.join(np.tile(hidden, (gates, 1)), step.axis_list_of(node)[0])
            for node in cell[:2]:
                step.role(Input(node, []), 0, "producer")
                step.role(Input(node, []), 1, "consumer")
        below = np.tile(hidden, (directions, 1))
    states = [step.axis_list_of(node) for node in (step.arg("hx") if step.name == "lstm" else [step.arg("hx")])]
    for state in states:
        step.join(state[-1], hidden)
        step.freeze(*state[:-1])
    step.freeze(*x.axis_list[:-1])
    last: AxisList = [None] * (len(x) - 1)
    return [[*last, below], *[[None] * (len(x) - 1) + [hidden] for _ in states]]


PRODUCTS = {
    "linear": linear, "conv1d": convolution, "conv2d": convolution, "conv3d": convolution, "convolution": convolution,
    "conv_transpose1d": convolution, "conv_transpose2d": convolution, "conv_transpose3d": convolution,
    "matmul": matrix_product, "mm": matrix_product, "bmm": matrix_product, "mv": matrix_product, "dot": matrix_product,
    "addmm": matrix_product, "baddbmm": matrix_product, "einsum": einsum, "scaled_dot_product_attention": attention,
    "lstm": recurrent, "gru": recurrent, "rnn_tanh": recurrent, "rnn_relu": recurrent,
}  # fmt: skip
