"""Orders in memory are undone without changing a value, and every reader of a quantized value has its own operator."""

import copy

import pytest
import torch
from torch import nn

from cortado.lowering.graph import exported, one_sample, quiet_exporters
from cortado.lowering.in_order import example_in_order, network_in_order, one_reader_each, without_formats
from cortado.lowering.integers import DEQUANTIZE
from cortado.lowering.lower import lowered
from cortado.lowering.signed import UNROUND
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.nets.resnet import CifarResNet
from cortado.network.view import View
from cortado.task.task import Data, Task

LAST = torch.channels_last


def rounded_resnet() -> tuple[nn.Module, nn.Module, Task]:
    """A small ResNet whose strided shortcuts read what convolutions read: with quantizers, and lowered."""
    torch.manual_seed(0)
    original = CifarResNet(1, width=4).eval()
    images = torch.randn(24, 3, 16, 16)
    task = Task(*[Data(images[a : a + 8], torch.zeros(8).long()) for a in (0, 8, 16)])
    network = copy.deepcopy(original)
    for method in (QuantizeWeights(bits=7), QuantizeActivations()):
        method.apply(View(network, original, task.example), task)
    return network, lowered(network, task.example), task


class Turned(nn.Module):
    """Asks for channels last in the middle, and slices with a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        made = self.conv(images.contiguous(memory_format=torch.channels_last))
        return made.clone(memory_format=torch.channels_last)[:, :, ::2, ::2] + 1


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 8, 8), (1, 1, 8, 8), (1, 3, 1, 1)])
def test_an_example_in_order_has_the_strides_of_its_axes(shape):
    images = torch.randn(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
    made = example_in_order({"images": images})["images"]
    assert torch.equal(made, images) and made.stride() == torch.empty(shape).stride()


def test_a_network_in_order_is_a_copy_only_if_it_must():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert network_in_order(network) is network
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    made = network_in_order(last)
    assert made[0].weight.is_contiguous() and not last[0].weight.is_contiguous()
    assert torch.equal(made[0].weight, network[0].weight)


def test_every_value_of_the_graph_is_in_order():
    network = Turned().to(memory_format=torch.channels_last).eval()
    images = torch.randn(2, 3, 9, 9).contiguous(memory_format=torch.channels_last)
    one = example_in_order(one_sample(images))
    program = exported(network_in_order(network), one, any_batch=False)
    without_formats(program.graph)
    program.graph_module.recompile()
    made = program.module()
    with torch.no_grad():
        assert torch.allclose(made(one), network(one), rtol=1e-4, atol=1e-5)
    with quiet_exporters():
        again = torch.export.export(made, (one,)).run_decompositions()
    values = [node.meta["val"] for node in again.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    strided = [value for value in values if not value.is_contiguous() and value.is_contiguous(memory_format=LAST)]
    assert values and not strided


def test_every_reader_has_its_own_dequantize_operator():
    network, low, task = rounded_resnet()
    program = exported(low, task.example)
    kinds = DEQUANTIZE, UNROUND
    shared = [node for node in program.graph.nodes if node.target in kinds and len(node.users) > 1]
    assert shared, "the shortcut and the convolution read one operator"
    one_reader_each(program.graph)
    program.graph_module.recompile()
    assert all(len(node.users) == 1 for node in program.graph.nodes if node.target in kinds)
    with torch.no_grad():
        assert torch.equal(program.module()(task.validation.inputs), low(task.validation.inputs))
