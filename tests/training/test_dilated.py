"""Dilated convolutions in a training in bfloat16: those with uneven channels run in float32, and gradients are right."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import Diverged
from cortado.task.task import Task
from cortado.training.dilated import DilatedInFloat32
from cortado.training.loop import Training, train
from cortado.training.precision import Precision

LAYERS = {
    "uneven": (lambda: nn.Conv2d(40, 40, 3, padding=2, dilation=2), torch.float32),
    "uneven outputs": (lambda: nn.Conv2d(32, 20, 3, dilation=(1, 2)), torch.float32),
    "even": (lambda: nn.Conv2d(48, 32, 3, padding=2, dilation=2), torch.bfloat16),
    "not dilated": (lambda: nn.Conv2d(40, 40, 3), torch.bfloat16),
    "one axis": (lambda: nn.Conv1d(20, 16, 3, dilation=4, padding="same"), torch.float32),
    "transposed": (lambda: nn.ConvTranspose2d(40, 8, 3, dilation=2), torch.float32),
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_type_of_a_convolution_depends_on_its_dilation_and_channels(name):
    make, wanted = LAYERS[name]
    layer = make()
    channels = layer.in_channels
    with torch.autocast("cpu", torch.bfloat16), DilatedInFloat32():
        assert layer(torch.randn(2, channels, *[9] * (layer.weight.dim() - 2)).bfloat16()).dtype == wanted


def test_dilation_by_name_and_a_functional_call_are_seen():
    weight = torch.randn(20, 20, 3, 3)
    with torch.autocast("cpu", torch.bfloat16), DilatedInFloat32():
        assert functional.conv2d(torch.randn(1, 20, 9, 9), weight, dilation=2).dtype == torch.float32
        assert functional.conv2d(torch.randn(1, 20, 9, 9), weight=weight, dilation=(1, 3)).dtype == torch.float32
        assert functional.conv2d(torch.randn(1, 20, 9, 9), weight).dtype == torch.bfloat16


@pytest.mark.parametrize("channels", range(17, 41))
def test_gradients_are_those_of_float32_for_every_count_of_channels_that_a_cut_leaves(channels):
    torch.manual_seed(channels)
    layer = nn.Conv2d(channels, channels, 3, padding=2, dilation=2).to(memory_format=torch.channels_last)
    images, gradients = torch.randn(2, channels, 8, 8, requires_grad=True), []
    for half in (False, True):
        outputs = Precision(torch.device("cpu"), half, channels_last=True).run(layer, images)
        gradients.append(torch.autograd.grad(outputs.square().mean(), (layer.weight, layer.bias, images)))
    for wanted, found in zip(*gradients, strict=True):
        # 32 channels are whole blocks, which stay in bfloat16.
        if channels % 16:
            assert torch.equal(found, wanted)
        else:
            assert 0 < float((found - wanted).norm()) < 0.02 * float(wanted.norm())


def test_a_loss_that_is_not_finite_names_the_precision():
    data = torch.full((8, 3, 12, 12), 1e30), torch.arange(8) % 4
    task = Task(data, data, data, device="cpu", batch=8, trial=True)
    for precision, way_out in (("float32", "in float32 with"), ("bfloat16", "set precision: float32")):
        with pytest.raises(Diverged, match=way_out):
            train(Dilated(), task, Training(epochs=2, lr=1e30, optimizer="sgd", precision=precision))


class Dilated(nn.Module):
    """Five dilated convolutions, as a cut leaves them, that note the types of what they give."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 40, 40, 24, 40, 40]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=2, dilation=2) for a, b in pairwise(widths))
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)
        self.head = nn.Linear(40, 4)
        self.seen: set[torch.dtype] = set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            images = conv(images)
            self.seen.add(images.dtype)
            images = torch.relu(images)
        return self.head(images.mean((2, 3)))


def test_training_in_bfloat16_moves_dilated_weights_as_float32_does():
    torch.manual_seed(0)
    data = torch.randn(16, 3, 12, 12), torch.arange(16) % 4
    task = Task(data, data, data, device="cpu", batch=16, trial=True)
    start, made = Dilated(), {}
    for precision in ("float32", "bfloat16"):
        made[precision] = copy.deepcopy(start)
        train(made[precision], task, Training(epochs=1, lr=1.0, optimizer="sgd", momentum=0.0, precision=precision))
    assert made["bfloat16"].seen == {torch.float32}
    for name, before in start.named_parameters():
        slopes = [dict(network.named_parameters())[name] - before for network in made.values()]
        assert float((slopes[1] - slopes[0]).detach().norm()) < 0.05 * float(slopes[0].detach().norm()), name
