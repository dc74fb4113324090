"""Recurrent layers: LSTM, GRU and RNN."""

from collections.abc import Callable
from math import prod

import numpy as np
from torch import fx

from cortado.layers.recurrent import GATES
from cortado.network.graph.axes.moves import AxisList
from cortado.network.graph.axes.step import Input, Step, Value, node_shape
from cortado.network.graph.operators.facts import free, known
from cortado.network.graph.record import Operator, Shape


def recurrent(step: Step) -> Value:
    """Follow LSTM, GRU and plain recurrent layers: gates x hidden; one hidden width for all levels and directions."""
    params = step.arg("params")
    x, both = step.tensor("input"), bool(step.arg("bidirectional"))
    assert x is not None
    gates = GATES[step.name.upper()]
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


def recurrent_layer(operator: Operator) -> int:
    """Count one layer in one direction: (input (T, B, I), weight_ih, weight_hh, ...)."""
    activation, inner, outer = operator.arguments[:3]
    return prod(activation[:-1]) * (prod(inner) + prod(outer))


def recurrent_cost(at: int) -> Callable[[Operator], int]:
    """Return a counter for all layers together, with the list of weights as argument `at`: each matrix once per step."""

    def count(operator: Operator) -> int:
        weights: tuple[Shape, ...] = operator.arguments[at]
        return prod(operator.arguments[0][:-1]) * sum(prod(weight) for weight in weights if len(weight) > 1)

    return count


OPERATORS = (
    known("lstm gru", axes=recurrent, cost=recurrent_cost(2))
    | known("rnn_tanh rnn_relu", axes=recurrent)
    | known("_cudnn_rnn miopen_rnn", cost=recurrent_cost(1))
    | known("mkldnn_rnn_layer", cost=recurrent_layer)
    | known("_thnn_fused_lstm_cell _thnn_fused_gru_cell _pack_padded_sequence _pad_packed_sequence", cost=free)
)
