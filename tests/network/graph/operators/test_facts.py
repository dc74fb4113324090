"""What the table says of an operator is what torch computes."""

import pytest
import torch
from torch.nn import functional

from cortado.layers.roles import FLOAT, JOIN, MOVE
from cortado.network.graph.operators.table import FACTS, operator_facts
from cortado.network.graph.record import Operator

VALUES = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
MOVED = {
    "view": lambda x: x.view(2, 2, 2, 6, 6),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "slice": lambda x: x[:, 1:3, ::2],
    "flip": lambda x: x.flip(1),
    "index_select": lambda x: x.index_select(1, torch.tensor([3, 0])),
    "max_pool2d": lambda x: functional.max_pool2d(x, 2),
    "upsample_nearest2d": lambda x: functional.interpolate(x, scale_factor=2.0),
    "reflection_pad2d": lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"),
    "constant_pad_nd": lambda x: functional.pad(x, (1, 1)),
    "pixel_shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "cat": lambda x: torch.cat([x, x], 1),
    "split": lambda x: torch.cat(x.split(3, 1)[::-1], 1),
}
SCALED = {
    "relu": torch.relu,
    "max_pool2d": lambda x: functional.max_pool2d(x, 2),
    "avg_pool2d": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "_adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(x, 2),
    "mean": lambda x: x.mean((2, 3)),
}


@pytest.mark.parametrize("name", list(MOVED))
def test_what_moves_values_gives_only_values_of_its_input_and_zeros(name):
    assert operator_facts(name).keeps_grid
    found = set(MOVED[name](VALUES).flatten().tolist())
    assert found <= {*VALUES.flatten().tolist(), 0.0}


@pytest.mark.parametrize("name", list(SCALED))
def test_a_factor_on_a_channel_passes_through_what_is_homogeneous(name):
    assert 0 in operator_facts(name).homogeneous
    factors = torch.tensor([0.5, 2.0, 1.0, 4.0])
    before = SCALED[name](VALUES * factors.view(-1, 1, 1))
    after = SCALED[name](VALUES)
    assert torch.allclose(before, after * factors.view(-1, *[1] * (after.dim() - 2)))


@pytest.mark.parametrize(
    ("name", "function", "given"),
    [
        ("relu", torch.relu, ()),
        ("clamp", torch.clamp, (0.0, 6.0)),
        ("clamp", torch.clamp, (-1.0, 6.0)),
        ("clamp_min", torch.clamp_min, (0.0,)),
        ("hardtanh", functional.hardtanh, (0.0, 6.0)),
        ("leaky_relu", functional.leaky_relu, (0.2,)),
        ("leaky_relu", functional.leaky_relu, ()),
        ("prelu", functional.prelu, (torch.tensor([0.3]),)),
        ("add", torch.add, (1.0,)),
    ],
)
def test_the_factor_below_zero_is_at_least_the_slope_there(name, function, given):
    below = operator_facts(name).below((VALUES, *given), {})
    points = torch.tensor([-0.9, -0.4])
    slope = float(function(points, *given).diff()) / float(points.diff())
    assert below == pytest.approx(slope) or below == 1.0
    assert (below == 0) == (slope == 0)


def test_an_activation_with_a_number_is_arithmetic_and_two_are_a_sum():
    assert operator_facts("add").role_in((VALUES, 1.0), {}, 1) == FLOAT
    assert operator_facts("add").role_in((VALUES, VALUES), {}, 2) == JOIN
    assert operator_facts("mean").role_in((VALUES,), {}, 1) == JOIN


def test_padding_with_another_value_than_zero_is_no_move():
    pad = operator_facts("constant_pad_nd")
    assert pad.role_in((VALUES, [1, 1]), {}, 1) == pad.role_in((VALUES, [1, 1], 0.0), {}, 1) == MOVE
    assert pad.role_in((VALUES, [1, 1], 2.0), {}, 1) == pad.role_in((VALUES, [1, 1]), {"value": 2.0}, 1) == FLOAT


def test_in_place_versions_have_the_facts_of_their_operators():
    assert operator_facts("relu_") is FACTS["relu"]
    assert Operator("aten.relu_.default", (), ()).short_name == "relu"
    assert operator_facts("no_such_operator").axes is None
