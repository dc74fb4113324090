"""Lowering: a copy that computes the same, whatever held the weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from cortado.errors import BadNetwork
from cortado.lowering import lower
from cortado.lowering.graph import graph_of
from cortado.lowering.lower import lowered, outputs
from cortado.network.coupling.answers import difference
from tests.laws.tiny_nets import TINY_NETS


@pytest.mark.parametrize("net", TINY_NETS, ids=lambda net: net.name)
def test_lowered_computes_the_same_and_leaves_the_network_alone(net):
    network = net.make()
    before = copy.deepcopy(network.state_dict())
    made = lowered(network, net.example)
    assert difference(outputs(made, net.example), outputs(network, net.example)) < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert not any(parameter.requires_grad for parameter in made.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("net", TINY_NETS, ids=lambda net: net.name)
def test_lowered_differs_by_rounding_of_the_type_that_the_network_has(net, dtype):
    network, example = net.make().to(dtype), net.example.to(dtype)
    made = lowered(network, example)
    assert outputs(made, example)[0].dtype == dtype
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())


def test_lowered_makes_parametrized_weights_plain():
    network = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU()).eval()
    made = lowered(network, torch.randn(2, 4))
    assert type(network[0]) is not nn.Linear and network(torch.randn(2, 4)).shape == (2, 3)
    assert type(made[0]) is nn.Linear and "weight" in dict(made[0].named_parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lowered_refuses_what_it_changed(monkeypatch, dtype):
    def wrong(network, example, difference):
        with torch.no_grad():
            network[0].bias.add_(1)

    monkeypatch.setattr(lower, "fold_norms", wrong)
    with pytest.raises(BadNetwork, match="changed its outputs by .* of the largest one"):
        lowered(nn.Sequential(nn.Linear(3, 2)).to(dtype), torch.randn(2, 3, dtype=dtype))


def test_difference_is_a_share_of_the_largest_entry():
    assert difference([torch.tensor([10.0, 1.0])], [torch.tensor([10.0, 2.0])]) == pytest.approx(0.1)
    assert difference([torch.zeros(2)], [torch.zeros(2)]) == 0
    assert difference([], []) == float("inf")


@pytest.mark.parametrize("found", [[torch.tensor([1.0])], [torch.tensor([1.0, float("nan")])], []])
def test_difference_is_infinite_for_what_cannot_be_compared(found):
    assert difference(found, [torch.tensor([1.0, 2.0])]) == float("inf")


def test_difference_takes_equal_infinities_for_equal():
    value = torch.tensor([1.0, float("-inf")])
    assert difference([value], [value]) == 0
    assert difference([torch.tensor([1.0, float("inf")])], [value]) == float("inf")


def test_network_that_cannot_be_traced_is_refused_with_its_line():
    class Branches(nn.Module):
        def forward(self, activation):
            return activation if activation.sum() > 0 else -activation

    network = Branches()
    with pytest.raises(BadNetwork, match=r"test_lower\.py, line \d+"):
        lower.graph_of(network, torch.randn(2, 3))


def test_network_that_fixes_its_batch_is_refused():
    class Fixed(nn.Module):
        def forward(self, activation):
            return activation.view(2, 6)

    with pytest.raises(BadNetwork, match="fixes its batch"):
        lower.graph_of(Fixed(), torch.randn(2, 2, 3))


def test_outputs_in_an_unknown_class_are_refused_with_the_way_out():
    class Holder:
        def __init__(self, output):
            self.output = output

    class Telling(nn.Linear):
        def forward(self, inputs):
            return Holder(super().forward(inputs))

    with pytest.raises(BadNetwork, match=r"known type\. Register that class with torch.export.register_dataclass, or"):
        graph_of(Telling(3, 2).eval(), torch.randn(2, 3))
