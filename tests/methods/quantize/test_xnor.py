"""quantize/xnor: signs go into products; what runs beside them, the shortcut of a Bi-Real unit, keeps its floats."""

import torch
from torch import nn
from torch.nn import functional

from cortado.methods.quantize.xnor import QuantizeXnor
from cortado.nets.bi_real_resnet import BiRealResNet, BiRealUnit
from cortado.network.view import View
from cortado.parts.activations.quantizer import INPUT, sites
from cortado.task.task import Data, Task


def rounded():
    torch.manual_seed(0)
    original = BiRealResNet(1, width=4).eval()
    pictures = torch.randn(8, 3, 16, 16)
    task = Task(*[Data(pictures, torch.zeros(8, dtype=torch.int64))] * 3, trial=True)
    network = BiRealResNet(1, width=4).eval()
    network.load_state_dict(original.state_dict())
    QuantizeXnor(smooth=True).apply(View(network, original, task.example), task)
    return network, pictures


def test_each_convolution_takes_the_signs_itself():
    network, _ = rounded()
    assert set(sites(network)) == {(f"units.{number}.conv", INPUT) for number in range(3)}


def test_shortcuts_go_on_with_the_floats():
    network, pictures = rounded()
    unit = network.units[0]
    assert isinstance(unit, BiRealUnit)
    with torch.no_grad():
        activation = network.norm1(network.conv1(pictures))
        weight = unit.conv.weight
        scales = weight.abs().mean((1, 2, 3), keepdim=True)
        torch.testing.assert_close(weight.abs(), scales.expand_as(weight))
        wanted = unit.norm(functional.conv2d(torch.where(activation < 0, -1.0, 1.0), weight, padding=1)) + activation
        torch.testing.assert_close(unit(activation), wanted)
    assert len(unit(activation).unique()) > 1000


def test_gradient_reaches_what_lies_before_the_signs():
    network, pictures = rounded()
    network.train()
    functional.cross_entropy(network(pictures), torch.arange(8)).backward()
    first = network.conv1
    moved = [value.grad for value in first.parameters() if value.grad is not None]
    assert isinstance(first, nn.Conv2d) and moved and all(bool(grad.abs().sum() > 0) for grad in moved)
