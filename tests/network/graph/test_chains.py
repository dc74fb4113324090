"""Units are found only where they can be cut, and cutting dead ones changes no output."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.methods.prune.units import PruneUnits
from cortado.network.graph.chains import find_units
from cortado.network.view import View
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized


class Net(nn.Module):
    """Two layers and what is between them, as a function of both and the input."""

    def __init__(self, first, second, between, **others):
        super().__init__()
        self.first, self.second, self.between = first, second, between
        for name, layer in others.items():
            setattr(self, name, layer)

    def forward(self, activation):
        return self.between(self, activation)


def original(net, x):
    return net.second(torch.relu(net.first(x)))


def flat(net, x):
    return net.second(torch.flatten(functional.max_pool2d(net.first(x), 2), 1))


def normed(net, x):
    return net.second(torch.relu(net.norm(net.first(x))))


CUT = {
    "linear, linear": (Net(nn.Linear(4, 6), nn.Linear(6, 2), original), (2, 4)),
    "linear on a sequence": (Net(nn.Linear(4, 6), nn.Linear(6, 2), original), (2, 5, 4)),
    "conv, conv": (Net(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 2, 3), original), (2, 1, 7, 7)),
    "conv, pool, flatten, linear": (Net(nn.Conv2d(1, 6, 3), nn.Linear(24, 2), flat), (2, 1, 6, 6)),
    "conv1d, conv1d": (Net(nn.Conv1d(3, 6, 3), nn.Conv1d(6, 2, 3), original), (2, 3, 9)),
    "conv3d, conv3d": (Net(nn.Conv3d(1, 6, 2), nn.Conv3d(6, 2, 2), original), (2, 1, 4, 4, 4)),
}
FROZEN = {
    "linear on a sequence, then flattened": (
        Net(nn.Linear(4, 6), nn.Linear(18, 2), lambda n, x: n.second(torch.flatten(n.first(x), 1))), (2, 3, 4)),
    "linear that reads positions, as many as channels": (Net(nn.Conv1d(2, 8, 3, padding=1), nn.Linear(8, 2), original), (2, 2, 8)),
    "convolution that reads positions": (Net(nn.Linear(5, 6), nn.Conv1d(6, 2, 1), original), (2, 6, 5)),
    "pool across the units of a linear layer": (
        Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.pool(n.first(x))), pool=nn.MaxPool1d(3, 1, 1)), (2, 3, 4)),
    "norm of positions": (Net(nn.Linear(4, 6), nn.Linear(6, 2), normed, norm=nn.BatchNorm1d(6)), (2, 6, 4)),
    "norm after flattening": (
        Net(nn.Conv2d(1, 3, 3), nn.Linear(12, 2), lambda n, x: n.second(n.norm(torch.flatten(n.first(x), 1))), norm=nn.BatchNorm1d(12)),
        (2, 1, 4, 4)),
    "weight read past the layer": (
        Net(nn.Linear(4, 4), nn.Linear(4, 2), lambda n, x: n.second(torch.relu(n.first(x))) + (x @ n.first.weight)[:, :2]), (2, 4)),
    "layer called twice": (Net(nn.Linear(4, 4), nn.Linear(4, 2), lambda n, x: n.second(n.first(n.first(x)))), (2, 4)),
    "sum with the input": (Net(nn.Linear(4, 4), nn.Linear(4, 2), lambda n, x: n.second(x + n.first(x))), (2, 4)),
    "softmax over the units": (Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.first(x).softmax(1))), (2, 4)),
    "output": (Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: (n.first(x), n.second(n.first(x)))), (2, 4)),
    "branch on a value": (Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: original(n, x) if x.sum() > 0 else x), (2, 4)),
}  # fmt: skip


def finalized(net: nn.Module) -> nn.Module:
    """In eval mode, with norms that do something."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.weight.data.uniform_(1, 2)
    return net.eval()


@pytest.mark.parametrize("case", list(CUT))
def test_units_are_found_and_cutting_the_dead_changes_nothing(case):
    net, shape = finalized(copy.deepcopy(CUT[case][0])), CUT[case][1]
    example = torch.randn(shape)
    with torch.no_grad():
        net.first.weight[[1, 4]] = 0
        net.first.bias[[1, 4]] = 0
        wanted = net(example)
    assert [units.path for units in find_units(net, example)] == ["first"]
    assert PruneUnits().sweep(View(net, net, example)) == 2
    assert net.first.weight.shape[0] == 4 == len(net.first.bias)
    torch.testing.assert_close(net(example), wanted)


@pytest.mark.parametrize("case", list(FROZEN))
def test_units_are_left_alone_when_not_sure(case):
    net, shape = finalized(FROZEN[case][0]), FROZEN[case][1]
    assert find_units(net, torch.randn(shape)) == []


def test_units_stay_when_two_layers_share_a_weight():
    net = Net(nn.Linear(4, 4), nn.Linear(4, 4), original)
    net.second.weight = net.first.weight
    assert find_units(net, torch.randn(2, 4)) == []
    form = Quantized.of(net.first.weight, 4)
    attach(net.first, "weight", form)
    attach(net.second, "weight", form)
    assert find_units(net, torch.randn(2, 4)) == []


@pytest.mark.parametrize("make_nothing", ["sigmoid", "norm"])
def test_unit_that_feeds_a_constant_is_not_dead(make_nothing):
    between = normed if make_nothing == "norm" else lambda n, x: n.second(torch.sigmoid(n.first(x)))
    net = finalized(Net(nn.Linear(4, 6), nn.Linear(6, 2), between, norm=nn.BatchNorm1d(6)))
    example = torch.randn(2, 4)
    with torch.no_grad():
        net.first.weight[1] = 0
        net.first.bias[1] = 0
        wanted = net(example)
    assert PruneUnits().sweep(View(net, net, example)) == 0
    torch.testing.assert_close(net(example), wanted)


def test_unit_that_nothing_reads_is_dead_even_behind_a_norm():
    net = finalized(Net(nn.Linear(4, 6), nn.Linear(6, 2), normed, norm=nn.BatchNorm1d(6)))
    example = torch.randn(2, 4)
    with torch.no_grad():
        net.second.weight[:, 2] = 0
        wanted = net(example)
    assert PruneUnits().sweep(View(net, net, example)) == 1
    assert net.norm.num_features == 5 == len(net.norm.running_mean)
    torch.testing.assert_close(net(example), wanted)


def test_finding_units_leaves_mode_and_statistics_alone():
    net = Net(nn.Linear(4, 6), nn.Linear(6, 2), normed, norm=nn.BatchNorm1d(6)).train()
    before = copy.deepcopy(net.state_dict())
    find_units(net, torch.randn(2, 4))
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_cut_narrows_held_weights_in_their_forms():
    net = Net(nn.Conv2d(1, 3, 3), nn.Linear(12, 2), flat).eval()
    example = torch.randn(2, 1, 6, 6)
    attach(net.first, "weight", Quantized.of(net.first.weight, 4, "channel"))
    mask = torch.rand(2, 12) > 0.4
    attach(net.second, "weight", Dense(net.second.weight).select(mask))
    rows, columns = net.first.weight.detach().clone(), net.second.weight.detach().clone()
    find_units(net, example)[0].cut(torch.tensor([2, 0]))
    assert isinstance(form_of(net.first, "weight"), Quantized) and isinstance(form_of(net.second, "weight"), Masked)
    assert torch.equal(net.first.weight, rows[[2, 0]])
    assert torch.equal(net.second.weight, columns.view(2, 3, 4)[:, [2, 0]].reshape(2, 8))
    assert (net.first.out_channels, net.second.in_features) == (2, 8)
    assert net(example).shape == (2, 2)


def test_layer_without_live_units_keeps_one():
    net = Net(nn.Linear(4, 6), nn.Linear(6, 2), original).eval()
    with torch.no_grad():
        net.first.weight.zero_()
        net.first.bias.zero_()
    PruneUnits().sweep(View(net, net, torch.randn(2, 4)))
    assert net.first.out_features == 1
    torch.testing.assert_close(net(torch.randn(3, 4)), net.second.bias.expand(3, 2))
