"""Which modules are blocks: those of stages and encoders, not what has them inside, not layers."""

import torch
from torch import Tensor, nn

from cortado.nets.resnet import CifarResNet
from cortado.network.graph.blocks import find_blocks, left_out
from tests.file.cut_nets import Encoder


class Squeeze(nn.Module):
    """Squeeze and excitation: keeps the shape, but stands inside a block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, 2, 1), nn.Conv2d(2, width, 1)

    def forward(self, activation: Tensor) -> Tensor:
        return activation * self.two(self.one(activation.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Inverted(nn.Module):
    """A mobile block, with a sum where widths agree."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.sums = width == out
        self.body = nn.Sequential(
            nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.BatchNorm2d(2 * width), nn.ReLU()),
            Squeeze(2 * width),
            nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU()),
            nn.Conv2d(2 * width, out, 1),
        )

    def forward(self, activation: Tensor) -> Tensor:
        return activation + self.body(activation) if self.sums else self.body(activation)


def test_blocks_of_a_residual_network_are_those_that_keep_the_shape():
    network = CifarResNet(3, width=4).eval()
    paths = find_blocks(network, torch.randn(2, 3, 16, 16))
    assert paths == ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]


def test_blocks_of_a_mobile_network_are_not_the_parts_inside():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), Inverted(4, 4), Inverted(4, 6), Inverted(6, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    assert find_blocks(network, torch.randn(2, 3, 8, 8)) == ["1", "3"]


def test_blocks_of_a_transformer_may_take_a_mask():
    assert find_blocks(Encoder().eval(), torch.randn(2, 5, 6)) == ["blocks.0", "blocks.1", "blocks.2"]


def test_stock_encoder_asks_its_first_layer_for_more_and_keeps_it():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.Sequential(
        nn.Linear(6, 8), nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(8, 2)
    )
    assert find_blocks(network.eval(), torch.randn(2, 5, 6)) == ["1.layers.1", "1.layers.2"]


def test_layers_chains_and_modules_in_two_places_are_no_blocks():
    chain = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    original = nn.Sequential(nn.Conv2d(3, 4, 3), chain, nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout()), nn.Flatten())
    assert find_blocks(original.eval(), torch.randn(2, 3, 6, 6)) == []
    shared = Inverted(4, 4)
    twice = nn.Sequential(nn.Conv2d(3, 4, 3), shared, shared, nn.Flatten())
    assert find_blocks(twice.eval(), torch.randn(2, 3, 6, 6)) == []


def test_whole_network_in_a_wrapper_is_no_block():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4))

        def forward(self, activation):
            return activation + self.inner(activation)

    assert find_blocks(nn.Sequential(Wrapper()).eval(), torch.randn(2, 4)) == []
    assert find_blocks(nn.Sequential(Wrapper(), nn.Linear(4, 4)).eval(), torch.randn(2, 4)) == ["0"]


def test_network_is_as_it_was():
    network = CifarResNet(2, width=4)
    network.layer1[0].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    text, modes = repr(network), [module.training for module in network.modules()]
    find_blocks(network, torch.randn(2, 3, 16, 16))
    with left_out(network, "layer1.1"):
        assert repr(network) != text
    assert repr(network) == text and modes == [module.training for module in network.modules()]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
