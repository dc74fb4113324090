"""Pooled heads: least squares on means, exact for heads that only read means, whole heads at once."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cortado.errors import NothingChanged
from cortado.file.artifact import decode, encode
from cortado.methods.compact.global_pooling import CompactGlobalPooling
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.blocks.pooled_linear import PooledLinear
from cortado.task.task import Data, Task


class Pictures(nn.Module):
    """Convolution, and a head of one or three linear layers on flattened maps."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        deeper = [nn.Linear(54, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4)]
        self.head = nn.Sequential(nn.Dropout(), *(deeper if deep else [nn.Linear(54, 4)]))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.flatten(self.body(images), 1))


def problem(deep: bool = True) -> tuple[View, Task, nn.Module]:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network, images = Pictures(deep).eval(), torch.randn(400, 1, 6, 6) + torch.randn(400, 1, 1, 1)
    data = Data(images, torch.zeros(400, dtype=torch.long))
    return View(copy.deepcopy(network), network, images[:2]), Task(data, data, data), network


def test_head_that_reads_means_is_found_again():
    view, task, original = problem(deep=False)
    for network in (view.network, original):
        layer = network.head[1]
        layer.weight.data = layer.weight.data[:, :6].repeat_interleave(9, 1)
    CompactGlobalPooling(ridge=0.0).apply(view, task)
    block = view.network.head[1]
    assert isinstance(block, PooledLinear) and block.places == 9
    torch.testing.assert_close(block.linear.weight, 9 * original.head[1].weight[:, ::9], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(view.network(task.example), original(task.example), rtol=1e-3, atol=1e-3)


def test_whole_head_is_the_least_squares_fit_to_its_outputs():
    view, task, original = problem()
    CompactGlobalPooling(ridge=0.0).apply(view, task)
    assert [isinstance(one, Bypass) for one in view.network.head] == [False, False] + [True] * 5
    images = task.train.inputs
    with torch.no_grad():
        means = torch.cat([original.body(images).mean((2, 3)), torch.ones(400, 1)], 1).double()
        wanted = original(images).double()
        best = means @ torch.linalg.lstsq(means, wanted).solution
        torch.testing.assert_close(view.network(images).double(), best, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("how", [{"whole": False}, {"where": "head.1"}])
def test_first_layer_alone_where_others_are_not_to_be_replaced(how):
    view, task, original = problem()
    CompactGlobalPooling(**how).apply(view, task)
    assert isinstance(view.network.head[1], PooledLinear)
    assert torch.equal(view.network.head[4].weight, original.head[4].weight)
    before, after = (profile(one, task.example).total("parameters").value for one in (original, view.network))
    assert before - after == 48 * 20


def test_file_brings_it_back():
    view, task, original = problem()
    CompactGlobalPooling().apply(view, task)
    again = decode(encode(view.network, original), original)
    assert torch.equal(again(task.example), view.network(task.example))


def test_network_without_flattened_maps_is_refused_in_words():
    _, task, _ = problem()
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    with pytest.raises(NothingChanged, match="it needs a linear layer that reads flattened maps of several places"):
        CompactGlobalPooling().apply(View(copy.deepcopy(network), network, task.example), task)
