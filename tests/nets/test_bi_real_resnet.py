"""The Bi-Real ResNet-20: a shortcut for every convolution, by hand, and signs of both sorts at all of them."""

import torch
from torch.nn import functional

from cortado.methods.quantize.xnor import QuantizeXnor
from cortado.nets.bi_real_resnet import BiRealResNet, BiRealUnit, bi_real_resnet_20
from cortado.network.view import View
from cortado.parts.activations.quantizer import sites
from cortado.parts.activations.sign import Sign
from cortado.task.task import Data, Task


def test_unit_is_norm_of_convolution_beside_a_shortcut():
    torch.manual_seed(0)
    unit, quantizer = BiRealUnit(4, 8, 2).eval(), torch.randn(2, 4, 6, 6)
    branch = functional.conv2d(quantizer.clamp(-1, 1), unit.conv.weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5
    mean = quantizer.reshape(2, 4, 3, 2, 3, 2).mean((3, 5))
    torch.testing.assert_close(
        unit(quantizer).detach(), branch.detach() + mean.repeat(1, 2, 1, 1), rtol=1e-5, atol=1e-5
    )


def test_network_has_the_layers_of_resnet_20():
    network = bi_real_resnet_20()
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 19 and sum(p.numel() for p in network.parameters()) == 269_722


def test_every_inner_convolution_reads_signs_of_both_sorts():
    torch.manual_seed(0)
    network = BiRealResNet(1, width=4).eval()
    data = Data(torch.randn(8, 3, 32, 32), torch.arange(8))
    task = Task(data, data, data, batch=8, trial=True)
    QuantizeXnor().apply(View(network, network, task.example), task)
    found = sites(network)
    assert len(found) == 3 and all(isinstance(quantizer, Sign) for quantizer in found.values())
    seen = []
    for unit in network.units:
        unit.conv.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    with torch.no_grad():
        network(task.example)
    assert len(seen) == 3
    for quantizer in seen:
        assert set(quantizer.unique().tolist()) == {-1.0, 1.0}
