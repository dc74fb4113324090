"""Multiply-adds agree with arithmetic: where all numbers are 1, each multiply-add adds 1 to the sum of the outputs."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.network.graph.operators.table import FACTS, multiply_adds
from cortado.network.graph.record import Operator
from cortado.network.graph.trace import trace


class Run(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def cost(function, *shapes):
    traced = trace(Run(function), ones(shapes))
    costs = [multiply_adds(operator) for call in traced.calls for operator in call.operators]
    return None if None in costs else sum(costs)


def ones(shapes):
    return tuple(torch.ones(shape) for shape in shapes)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (functional.linear, [(2, 5), (3, 5)]),
        (functional.linear, [(2, 4, 5), (3, 5)]),
        (functional.linear, [(5,), (3, 5)]),
        (torch.matmul, [(2, 3), (3, 4)]),
        (torch.matmul, [(2, 3), (3,)]),
        (torch.matmul, [(3,), (3,)]),
        (torch.matmul, [(2, 7, 3), (3, 4)]),
        (torch.matmul, [(2, 1, 5, 3), (6, 3, 4)]),
        (torch.bmm, [(2, 5, 3), (2, 3, 4)]),
        (lambda one, two: torch.einsum("bij,bkj->bik", one, two), [(2, 3, 5), (2, 4, 5)]),
        (lambda one, two: torch.tensordot(one, two, dims=1), [(2, 3), (3, 4)]),
        (functional.conv1d, [(2, 4, 9), (6, 4, 3)]),
        (
            lambda activation, weight: functional.conv2d(activation, weight, stride=2, groups=2),
            [(2, 4, 9, 8), (6, 2, 3, 2)],
        ),
        (lambda activation, weight: functional.conv2d(activation, weight, groups=4), [(2, 4, 9, 8), (4, 1, 3, 3)]),
        (lambda activation, weight: functional.conv2d(activation, weight, dilation=2), [(2, 4, 9, 8), (6, 4, 3, 3)]),
        (functional.conv3d, [(1, 2, 5, 5, 5), (3, 2, 2, 3, 1)]),
        (functional.conv_transpose1d, [(2, 4, 5), (4, 6, 3)]),
        (lambda s, w: functional.conv_transpose2d(s, w, stride=2, groups=2), [(2, 4, 5, 3), (4, 3, 3, 3)]),
    ],
)
def test_cost_is_the_sum_of_a_product_of_ones(function, shapes):
    assert cost(function, *shapes) == function(*ones(shapes)).sum().item()


@pytest.mark.parametrize(
    ("function", "axis"), [(torch.addmm, 0), (torch.baddbmm, 1), (torch.addbmm, 1), (torch.addmv, None)]
)
def test_cost_leaves_out_what_is_only_added(function, axis):
    shapes = {0: [(2, 4), (2, 3), (3, 4)], 1: [(2, 4), (5, 2, 3), (5, 3, 4)], None: [(2,), (2, 3), (3,)]}[axis]
    if function is torch.baddbmm:
        shapes = [(5, 2, 4), *shapes[1:]]
    original = function(torch.zeros(shapes[0]), *ones(shapes[1:]))
    assert cost(function, *shapes) == original.sum().item()


def test_cost_of_padding_counts_the_zeros():
    padded = cost(
        lambda activation, weight: functional.conv2d(activation, weight, padding=1), (1, 2, 5, 5), (3, 2, 3, 3)
    )
    assert padded == 5 * 5 * 3 * 2 * 9


def test_cost_of_bilinear_is_two_products():
    layer = nn.Bilinear(3, 4, 5)
    (call,) = trace(layer, (torch.ones(2, 3), torch.ones(2, 4))).calls
    assert sum(multiply_adds(operator) for operator in call.operators) == 2 * (3 * 5 * 4 + 5 * 4)


@pytest.mark.parametrize("causal", [False, True])
def test_cost_of_attention_is_that_of_its_two_products(causal):
    def attend(query, key, value):
        return functional.scaled_dot_product_attention(query, key, value, is_causal=causal)

    assert cost(attend, (2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8)) == 2 * 4 * (5 * 7 * 8 + 5 * 7 * 8)
    unfused = cost(lambda q, k, v: (q @ k.transpose(-1, -2)).softmax(-1) @ v, (2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8))
    assert unfused == cost(attend, (2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("layer", "each_step"),
    [
        (lambda: nn.LSTM(5, 7, 2), 4 * 7 * (5 + 7) + 4 * 7 * (7 + 7)),
        (lambda: nn.LSTM(5, 7, bidirectional=True), 2 * 4 * 7 * (5 + 7)),
        (lambda: nn.LSTM(5, 7, proj_size=3), 4 * 7 * (5 + 3) + 7 * 3),
        (lambda: nn.GRU(5, 7), 3 * 7 * (5 + 7)),
        (lambda: nn.RNN(5, 7), 7 * (5 + 7)),
    ],
)
def test_cost_of_a_recurrent_layer_is_its_weights_at_each_step(device, layer, each_step):
    """On the CPU fused kernels run, on the meta device plain products: both must say the same."""
    with torch.device(device):
        network = layer()
    (call,) = trace(network, torch.zeros(6, 2, 5)).calls
    assert sum(multiply_adds(operator) for operator in call.operators) == 6 * 2 * each_step


@pytest.mark.parametrize("name", ["aten._cudnn_rnn.default", "aten.lstm.input"])
def test_recurrent_cost_counts_each_matrix_at_each_step(name):
    weights = ((28, 5), (28, 7), (28,), (28,))
    middle = (weights,) if "cudnn" in name else (((1, 2, 7), (1, 2, 7)), weights)
    assert multiply_adds(Operator(name, ((6, 2, 5), *middle), ((6, 2, 7),))) == 6 * 2 * 28 * (5 + 7)


@pytest.mark.parametrize(
    "function",
    [
        lambda activation: functional.max_pool2d(functional.relu(activation), 2),
        lambda activation: functional.adaptive_avg_pool2d(activation, 1).flatten(1).log_softmax(1),
        lambda activation: (
            functional.group_norm(activation, 2) + functional.layer_norm(activation, activation.shape[1:])
        ),
        lambda activation: functional.interpolate(activation, scale_factor=2.0, mode="bilinear"),
        lambda activation: (
            torch.cat((activation, functional.gelu(activation) * 3), 1).permute(0, 2, 3, 1).contiguous().mean(1)
        ),
        lambda activation: functional.pad(activation, (1, 1, 1, 1), mode="reflect")[:, :, ::2].topk(2).values.cumsum(1),
        lambda activation: functional.embedding(activation[0, 0, 0].long(), activation[0, 0]).var(0).sort().values,
        lambda activation: functional.local_response_norm(functional.hardswish(activation.clone()).transpose_(1, 2), 2),
    ],
)
def test_cost_of_what_only_moves_sums_or_normalizes_is_zero(function):
    assert cost(function, (1, 4, 6, 6)) == 0


@pytest.mark.parametrize(
    "function",
    [
        lambda activation: torch.fft.fft(activation).abs(),
        lambda activation: torch.linalg.inv(activation @ activation.transpose(0, 1) + torch.eye(4)),
        lambda activation: torch.cdist(activation, activation),
    ],
)
def test_cost_of_what_is_not_known_is_unknown(function):
    assert cost(function, (4, 6)) is None


def test_cost_of_another_librarys_operator_is_unknown():
    assert multiply_adds(Operator("mine.relu.default", ((2, 3),), ((2, 3),))) is None


def test_cost_knows_only_operators_that_exist():
    known = set(dir(torch.ops.aten))
    counted = [name for name, facts in FACTS.items() if facts.cost is not None]
    assert not [name for name in counted if not (hasattr(torch.ops.aten, name) or name + "_" in known)]
