"""Positions that halt: the file computes the same for any batch and share, and convolutions run for chosen positions alone."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cortado.lowering.lower import lowered
from cortado.nets.resnet import stage
from cortado.parts.blocks.ponder import Ponder, Score
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.positions import POSITIONS
from cortado.runtimes.rows import COMPACTION

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Halts(nn.Module):
    """A stage that halts between a convolution and the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.stage = Ponder(stage(4, width, width, 2), 4, width, "position")

    def forward(self, images: Tensor) -> Tensor:
        return self.stage(self.stem(images)).mean((2, 3))


def halts(bias, width=48):
    torch.manual_seed(0)
    network = Halts(width).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Score):
                module.near.weight.normal_(std=0.1)
                module.pooled.bias.fill_(bias)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)
                module.bias.normal_(std=0.3)
    return network


def written(network, form, folder):
    images = torch.randn(2, 3, 14, 10)
    folder.mkdir(exist_ok=True)
    return Onnxruntime().with_paths(form).lower(lowered(copy.deepcopy(network), images), images, folder)


def steps(file, kind):
    return sum(node.op_type == kind for node in onnx.load(file).graph.node)


@pytest.mark.parametrize("bias", [-30.0, -1.0, 0.0, 30.0])
def test_file_computes_what_pytorch_does(bias, tmp_path):
    network, generator = halts(bias), torch.Generator().manual_seed(1)
    session = Onnxruntime().load(written(network, POSITIONS, tmp_path), 1)
    for count in (1, 3):
        images = torch.randn(count, 3, 14, 10, generator=generator)
        with torch.no_grad():
            torch.testing.assert_close(session(images)[0], network(images), rtol=1e-4, atol=1e-5)


def test_convolutions_of_chosen_positions_are_products(tmp_path):
    dense, sparse = (written(halts(0.0), form, tmp_path / form) for form in (COMPACTION, POSITIONS))
    assert steps(dense, "Conv") - steps(sparse, "Conv") == 6
    assert steps(sparse, "Gemm") - steps(dense, "Gemm") == 6


def test_narrow_layers_stay_dense(tmp_path):
    dense, sparse = (written(halts(0.0, 16), form, tmp_path / form) for form in (COMPACTION, POSITIONS))
    assert steps(sparse, "Conv") == steps(dense, "Conv")
