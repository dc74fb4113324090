"""Explain: the error is found where it was put in."""

import copy

import torch
from torch import nn

from cortado.forms.hold import hold
from cortado.forms.quantized import Quantized
from cortado.network.explaining import explain
from cortado.signals.affine import Affine
from cortado.signals.signal import put_signal
from cortado.task import Data

INPUTS = Data(torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(16))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_only_the_rounded_layer_has_an_error_of_its_own():
    plain, small = network(), network()
    hold(small[2], "weight", Quantized.of(small[2].weight.detach(), 4))
    found = {layer.path: layer for layer in explain(plain, small, INPUTS).layers}
    assert found["0"].own == found["0"].total == 0.0
    assert found["2"].own > 0.01 and abs(found["2"].own - found["2"].total) < 1e-6
    assert found["4"].own == 0.0 and found["4"].total > 0.005
    assert found["2"].held == "quantized" and found["0"].held == "plain"


def test_rounded_signals_count_for_the_layer_that_has_them():
    plain, small = network(), network()
    put_signal(small[2], "input", Affine.spanning(0.0, 2.0, 3))
    found = explain(plain, small, INPUTS)
    assert [layer.path for layer in found.worst()] == ["2"]
    assert found.layers[2].held == "input 3 bits"
    assert "Most of the error enters at 2 (" in found.text()


def test_layers_of_other_shapes_are_unknown_and_none_is_left_out():
    plain, small = network(), network()
    small[0], small[2] = nn.Linear(8, 5), nn.Linear(5, 8)
    found = explain(plain, small, INPUTS)
    assert [layer.path for layer in found.layers] == ["0", "1", "2", "3", "4"]
    assert found.layers[0].total is None and found.layers[2].own is None and found.layers[2].total is not None
    assert "unknown" in found.text()


def test_network_that_is_unchanged_has_no_error():
    plain = network()
    found = explain(plain, copy.deepcopy(plain), INPUTS)
    assert found.output == 0.0 and "No layer adds an error of its own." in found.text()


def test_scales_between_equalized_layers_are_no_error():
    plain, small = network(), network()
    factors = torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0])
    with torch.no_grad():
        small[0].weight.mul_(factors[:, None])
        small[0].bias.mul_(factors)
        small[2].weight.div_(factors)
    hold(small[4], "weight", Quantized.of(small[4].weight.detach(), 3))
    found = explain(plain, small, INPUTS)
    assert all(layer.own < 1e-5 for layer in found.layers[:4])
    assert [layer.path for layer in found.worst()][0] == "4"
