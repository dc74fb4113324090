"""Explain: the error is found where it was put in."""

import copy

import pytest
import torch
from torch import nn

from cortado.methods.quantize.equalize import QuantizeEqualize
from cortado.network.compare.explain import compared_places, explain, listened, scales
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import put_quantizer
from cortado.parts.forms.attach import attach
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Data
from tests.laws.tiny_nets import BY_NAME

INPUTS = Data(torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(16))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_only_the_rounded_layer_has_an_error_of_its_own():
    original, small = network(), network()
    attach(small[2], "weight", Quantized.of(small[2].weight.detach(), 2))
    found = {layer.path: layer for layer in explain(original, small, INPUTS).layers}
    assert found["0"].own == found["0"].total == 0.0
    assert found["2"].own > 0.05 and abs(found["2"].own - found["2"].total) < 1e-6
    assert found["4"].own == 0.0 and found["4"].total > 0.01
    assert found["2"].attached == "quantized" and found["0"].attached == "original"


def test_rounded_activations_count_for_the_layer_that_has_them():
    original, small = network(), network()
    put_quantizer(small[2], "input", Affine.spanning(0.0, 2.0, 3))
    found = explain(original, small, INPUTS)
    assert [layer.path for layer in found.worst()] == ["2"]
    assert found.layers[2].attached == "input 3 bits"
    assert "Most of the error enters at 2 (" in found.text()


def test_layers_of_other_shapes_are_unknown_and_none_is_left_out():
    original, small = network(), network()
    small[0], small[2] = nn.Linear(8, 5), nn.Linear(5, 8)
    found = explain(original, small, INPUTS)
    assert [layer.path for layer in found.layers] == ["0", "1", "2", "3", "4"]
    assert found.layers[0].total is None and found.layers[2].own is None and found.layers[2].total is not None
    assert "unknown" in found.text()


def test_network_that_is_unchanged_has_no_error():
    original = network()
    found = explain(original, copy.deepcopy(original), INPUTS)
    assert found.output == 0.0 and "No layer adds an error of its own." in found.text()


def test_scales_between_equalized_layers_are_no_error():
    original, small = network(), network()
    factors = torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0])
    with torch.no_grad():
        small[0].weight.mul_(factors[:, None])
        small[0].bias.mul_(factors)
        small[2].weight.div_(factors)
    attach(small[4], "weight", Quantized.of(small[4].weight.detach(), 3))
    found = explain(original, small, INPUTS)
    assert all(layer.own < 1e-5 for layer in found.layers[:4])
    assert [layer.path for layer in found.worst()][0] == "4"


def test_equalized_network_shows_no_error_inside():
    original = BY_NAME["residual"].make()
    small = copy.deepcopy(original)
    task = BY_NAME["residual"].task()
    QuantizeEqualize().apply(View(small, small, task.example), task)
    wanted, seen = (
        listened(one, task.validation.inputs[:16], compared_places(original)).calls for one in (original, small)
    )
    apart = [float((seen[path].made - wanted[path].made).norm() / wanted[path].made.norm()) for path in wanted]
    assert max(apart) > 0.1
    found = explain(original, small, task.validation)
    assert [layer.path for layer in found.layers] == list(wanted)
    assert all(layer.own < 1e-5 and layer.total < 1e-5 for layer in found.layers)


def test_a_common_loss_of_size_is_no_scale_where_scaling_leaves_much():
    wanted = torch.randn(400, 3, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(400, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(scales(3 * wanted + 0.5 * noise, wanted), torch.full((1, 3), 3.0), rtol=0.1, atol=0)
    # Of 0.2^2 + 0.2^2 half is left.
    assert torch.equal(scales(0.8 * wanted + 0.2 * noise, wanted), torch.ones(1, 3))


def test_layers_that_work_in_place_change_no_record():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm = nn.Embedding(9, 8), nn.LayerNorm(8)
            self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(8, 3)

        def forward(self, words):
            made = self.relu(self.norm(self.table(words)))
            made += 1
            return self.head(made)

    torch.manual_seed(0)
    original = Net().eval()
    data = Data(torch.arange(9).repeat(2), torch.zeros(18))
    found = explain(original, copy.deepcopy(original), data)
    assert [layer.path for layer in found.layers] == ["table", "norm", "relu", "head"]
    assert [layer.own for layer in found.layers] == [layer.total for layer in found.layers] == [0.0] * 4


def test_layers_that_never_run_are_left_out():
    class Alone(nn.Module):
        def forward(self, quantizer):
            if not torch.is_grad_enabled() and quantizer.shape[0] and self.describe is None:
                raise ValueError("nobody told me")
            self.describe = None
            return quantizer

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.alone, self.never = nn.Linear(8, 8), Alone(), nn.Linear(3, 3)

        def forward(self, quantizer):
            self.alone.describe = 1
            return self.alone(self.first(quantizer))

    original = Net().eval()
    found = explain(original, copy.deepcopy(original), INPUTS)
    assert [(layer.path, layer.own, layer.total) for layer in found.layers] == [
        ("first", 0.0, 0.0),
        ("alone", None, 0.0),
    ]


def test_block_whose_output_is_rounded_has_the_error_of_that_rounding():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, quantizer):
            return quantizer + self.inner(quantizer)

    torch.manual_seed(0)
    original = nn.Sequential(Block(), nn.Linear(8, 3)).eval()
    small = copy.deepcopy(original)
    put_quantizer(small[0], "output", Affine.spanning(-4.0, 4.0, 4))
    found = {layer.path: layer for layer in explain(original, small, INPUTS).layers}
    quantizer = original[0](INPUTS.inputs).detach()
    wanted = float((Affine.spanning(-4.0, 4.0, 4)(quantizer).detach() - quantizer).norm() / quantizer.norm())
    assert found["0"].own == found["0"].total and abs(found["0"].own - wanted) < 1e-6
    assert found["0.inner"].own == 0.0 and found["1"].own == 0.0 and found["1"].total > 0


def test_of_layers_that_give_several_tensors_the_first_is_compared():
    original = BY_NAME["recurrent"].make()
    small, inputs = copy.deepcopy(original), BY_NAME["recurrent"].task().validation.inputs[:32]
    name = "weight_ih_l0"
    attach(small.lstm, name, Quantized.of(getattr(small.lstm, name).detach(), 3))
    found = {layer.path: layer for layer in explain(original, small, BY_NAME["recurrent"].task().validation).layers}
    with torch.no_grad():
        wanted, made = original.lstm(inputs)[0], small.lstm(inputs)[0]
    assert found["lstm"].total == pytest.approx(float((made - wanted).norm() / wanted.norm()), rel=1e-4)
    assert found["lstm"].own == found["lstm"].total > 0.01
