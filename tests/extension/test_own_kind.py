"""A user's layer class with a kind of its own is treated as torch's are, by methods that need to know what a layer computes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.layers.kind import Kind
from cortado.layers.kinds import kind_of
from cortado.layers.linear import follow_linear, linear_axes, whole_rows
from cortado.layers.roles import MATMUL
from cortado.methods.match_moments import MatchMoments
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.quantize.second_order import QuantizeSecondOrder
from cortado.network.quantizers.placement import quantizer_sites
from cortado.network.view import View
from cortado.parts.forms.attach import form_of
from cortado.task.task import Data, Task


class Projection(nn.Module):
    """A linear layer that is not torch's."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / in_features**0.5)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, values):
        return functional.linear(values, self.weight, self.bias)


SIZES = ("in_features", "out_features")
KIND = Kind("linear", Projection, SIZES, (), linear_axes, follow_linear, MATMUL, patches=whole_rows)


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(Projection, "__cortado_kind__", KIND, raising=False)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(Projection(6, 16), nn.ReLU(), Projection(16, 4)).eval()


@pytest.fixture
def task():
    inputs = torch.randn(96, 6, generator=torch.Generator().manual_seed(1))
    parts = [Data(inputs[a:b], inputs[a:b, :4].argmax(1)) for a, b in ((0, 64), (64, 80), (80, 96))]
    return Task(*parts, batch=16, device="cpu")


def test_it_is_one_step_of_the_flow_and_gets_quantizers(network, task):
    view = View(network, copy.deepcopy(network), task.example)
    assert [(step.kind, step.name) for step in view.flow.steps] == [
        (MATMUL, "Projection"), ("clip", "ReLU"), (MATMUL, "Projection"),
    ]  # fmt: skip
    places = {place for site in quantizer_sites(network, view.flow).quantizer_sites for place in site.places}
    assert places == {("0", "input"), ("1", "output")}


def test_its_weights_are_rounded_to_second_order(network, task):
    QuantizeSecondOrder(bits=3).apply(View(network, copy.deepcopy(network), task.example), task)
    assert form_of(network[0], "weight") is not None and form_of(network[2], "weight") is not None


def test_its_moments_are_matched(network, task):
    reference = copy.deepcopy(network)
    with torch.no_grad():
        network[2].weight.mul_(0.5)
    view = View(network, copy.deepcopy(reference), task.example, reference=reference)
    MatchMoments().apply(view, task)
    inputs = next(task.calibration.batches(64))[0]
    means = [one(inputs).mean(0) for one in (network, reference)]
    torch.testing.assert_close(*means, rtol=1e-3, atol=1e-3)
    assert not torch.equal(network[2].bias, reference[2].bias)


def test_its_numbers_follow_a_cut(network, task):
    PruneChannels(keep=0.5, multiple=1).apply(View(network, copy.deepcopy(network), task.example), task)
    assert network[0].out_features == network[2].in_features == len(network[0].weight) == 8


def test_without_its_kind_it_is_any_module(task):
    assert kind_of(Projection(3, 2)) is None
    network = nn.Sequential(Projection(6, 16), nn.ReLU(), Projection(16, 4)).eval()
    assert "Projection" not in {step.name for step in View(network, network, task.example).flow.steps}
