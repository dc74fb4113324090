"""Rounded: what is told of activations, grids and errors is what arithmetic gives."""

import copy

import pytest
import torch
from torch import nn

from cortado.network.compare import rounded as room
from cortado.network.compare.rounded import Fill, few_enough, rounded_layers, weight_bits
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.pact import Pact
from cortado.parts.activations.quantizer import put_quantizer
from cortado.parts.activations.sign import Sign
from cortado.parts.activations.unit import Unit
from cortado.parts.forms.attach import attach
from cortado.parts.forms.binary import Binary
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from cortado.parts.forms.squashed import Squashed
from cortado.task.task import Data

RAMP = Data(torch.linspace(-2.0, 6.0, 801).reshape(-1, 1), torch.zeros(801))
"""801 values a hundredth apart: the value at the share p is -2 + 8 p."""


class Net(nn.Module):
    """Doubles, and takes the positive part; one layer never runs, and they are written in another order."""

    def __init__(self):
        super().__init__()
        self.head, self.never, self.twice = nn.Linear(1, 1), nn.Linear(4, 4), nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.twice.weight.fill_(2.0)
            self.head.weight.fill_(1.0)
            self.head.bias.fill_(0.0)

    def forward(self, quantizer):
        return self.head(self.twice(quantizer).relu())


def rounded_net(*places):
    original = Net().eval()
    small = copy.deepcopy(original)
    for path, side, quantizer in places:
        put_quantizer(small.get_submodule(path), side, quantizer)
    return original, small


def test_range_grid_and_clipped_share_are_those_of_the_numbers():
    original, small = rounded_net(("twice", "input", Affine.spanning(-1.0, 5.0, 5)))
    found = rounded_layers(original, small, RAMP, 801)
    (layer,) = found.layers
    (fill,) = layer.activations
    # The step is 6 / 31, so zero is the code round(31 / 6) = 5: levels from -5 to 26 steps.
    step = 6 / 31
    assert fill.grid == pytest.approx((-5 * step, 26 * step), rel=1e-6)
    assert (fill.side, fill.bits, fill.low, fill.high) == ("input", 5, -2.0, 6.0)
    assert (fill.first, fill.last) == pytest.approx((-2 + 0.08, -2 + 7.92), abs=1e-5)
    inputs = RAMP.inputs
    outside = (inputs < -5.5 * step) | (inputs > 26.5 * step)
    assert fill.cut == pytest.approx(float(outside.double().mean()), abs=1e-12) and 0.2 < fill.cut < 0.3
    made = (inputs / step).round().clamp(-5, 26) * step
    assert layer.own == layer.total == pytest.approx(float((made - inputs).norm() / inputs.norm()), rel=1e-5)
    wanted = inputs.relu()
    assert found.output == pytest.approx(float((made.relu() - wanted).norm() / wanted.norm()), rel=1e-5)
    assert found.samples == 801 and layer.weight_bits is None


def test_unsigned_output_grid_is_measured_above_zero():
    original, small = rounded_net(("twice", "output", Affine.spanning(0.0, 15.0, 4)))
    (layer,) = rounded_layers(original, small, RAMP, 801).layers
    (fill,) = layer.activations
    assert fill == Fill("output", 4, 0.0, 0.0, pytest.approx(2 * 5.92, abs=1e-4), 12.0, (0.0, 15.0), 0.0)
    wanted = (2 * RAMP.inputs).relu()
    assert layer.own == pytest.approx(float((wanted.round() - wanted).norm() / wanted.norm()), rel=1e-5)


def test_layers_come_in_running_order_those_that_never_run_are_left_out():
    original, small = rounded_net(
        ("head", "input", Affine.spanning(0, 8, 8)), ("never", "input", Affine.spanning(0, 1, 4))
    )
    for path in ("twice", "never"):
        layer = small.get_submodule(path)
        attach(layer, "weight", Quantized.of(layer.weight.detach(), 4))
    found = rounded_layers(original, small, RAMP)
    assert [layer.path for layer in found.layers] == ["twice", "head"]
    assert found.samples == 32 and found.layers[0].activations == ()


def test_nothing_rounded_is_nothing_and_runs_nothing(monkeypatch):
    original, small = rounded_net()
    monkeypatch.setattr(Net, "forward", lambda self, quantizer: pytest.fail("ran"))
    attach(small.head, "weight", Dense(small.head.weight.detach()).select(torch.ones(1, 1, dtype=torch.bool)))
    assert rounded_layers(original, small, RAMP) is None


def test_only_layers_that_never_run_are_rounded_is_nothing():
    original, small = rounded_net(("never", "input", Affine.spanning(0, 1, 4)))
    assert rounded_layers(original, small, RAMP) is None


def test_values_that_are_no_numbers_are_left_out():
    inputs = RAMP.inputs.clone()
    inputs[::2] = float("-inf")
    original, small = rounded_net(("twice", "input", Affine.spanning(-2.0, 6.0, 8)))
    (layer,) = rounded_layers(original, small, Data(inputs, RAMP.targets), 801).layers
    assert (layer.activations[0].low, layer.activations[0].high) == pytest.approx((-1.99, 5.99))
    assert layer.own is None and layer.total is None


@pytest.mark.parametrize(
    ("quantizer", "wanted"),
    [
        (Affine.spanning(0.0, 3.0, 2), (0.0, 3.0)),
        (Affine.spanning(-7.0, 8.0, 4), (-7.0, 8.0)),
        (Unit(3), (0.0, 1.0)),
        (Pact(2.5, 4), (0.0, 2.5)),
        (Sign(), (-1.0, 1.0)),
        (Sign(scaled=True), None),
    ],
)
def test_ends_of_a_grid_are_the_least_and_the_largest_that_pass(quantizer, wanted):
    assert quantizer.ends() == (wanted if wanted is None else pytest.approx(wanted))
    if wanted is not None:
        with torch.no_grad():
            passed = quantizer(torch.linspace(-100.0, 100.0, 2001))
        assert (float(passed.min()), float(passed.max())) == pytest.approx(wanted)


def test_activation_whose_grid_moves_has_no_share_that_is_clipped():
    original, small = rounded_net(("twice", "input", Sign(scaled=True)))
    (fill,) = rounded_layers(original, small, RAMP).layers[0].activations
    assert fill.grid is None and fill.cut is None and fill.bits == 1


def test_bits_of_weights_are_those_that_hold_the_codes_inside_masks_too():
    torch.manual_seed(0)
    layer = nn.Linear(16, 16)
    weight = layer.weight.detach().clone()
    assert weight_bits(layer) is None
    mask = torch.rand(16, 16) < 0.5
    forms = [
        (Quantized.of(weight, 4), 4),
        (Codebook(torch.tensor([-1.0, 0.0, 1.0]), torch.randint(0, 3, (16, 16))), 2),
        (Binary(weight).finalize(), 1),
        (Squashed(weight, 2).finalize(), 2),
        (Masked(mask, Quantized.of(weight[mask], 3)), 3),
    ]
    for form, bits in forms:
        made = copy.deepcopy(layer)
        attach(made, "weight", form)
        assert weight_bits(made) == bits


def test_of_a_large_network_fewer_samples_are_looked_at(monkeypatch):
    original, _ = rounded_net()
    # Each sample: double reads and gives one number, head as well, in two networks.
    monkeypatch.setattr(room, "MOST_KEPT", 8 * 5)
    assert few_enough(original, {"twice", "head"}, RAMP, 100) == 5
    monkeypatch.setattr(room, "MOST_KEPT", 1)
    assert few_enough(original, {"twice", "head"}, RAMP, 100) == 1
