"""prune/units removes dead units and sorts the others, wherever channels can be cut, and changes no output."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.engine.compress import compress
from cortado.errors import BadNetwork
from cortado.methods.prune.units import PruneUnits
from cortado.network.view import View
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Data, Task


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
CUT["linear on a sequence, then flattened"] = (
    Net(nn.Linear(4, 6), nn.Linear(18, 2), lambda n, x: n.second(torch.flatten(n.first(x), 1))),
    (2, 3, 4),
)
CUT["with another layer's outputs behind them"] = (
    Net(
        nn.Linear(4, 6),
        nn.Linear(11, 2),
        lambda n, x: n.second(torch.cat([n.first(x), n.third(x)], 1)),
        third=nn.Linear(4, 5),
    ),
    (2, 4),
)
LEFT = {
    "linear that reads positions, as many as channels": (
        Net(nn.Conv1d(2, 8, 3, padding=1), nn.Linear(8, 2), original),
        (2, 2, 8),
    ),
    "convolution that reads positions": (Net(nn.Linear(5, 6), nn.Conv1d(6, 2, 1), original), (2, 6, 5)),
    "pool across the units of a linear layer": (
        Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.pool(n.first(x))), pool=nn.MaxPool1d(3, 1, 1)),
        (2, 3, 4),
    ),
    "weight read past the layer": (
        Net(
            nn.Linear(4, 4),
            nn.Linear(4, 2),
            lambda n, x: n.second(torch.relu(n.first(x))) + (x @ n.first.weight)[:, :2],
        ),
        (2, 4),
    ),
    "sum with the input": (Net(nn.Linear(4, 4), nn.Linear(4, 2), lambda n, x: n.second(x + n.first(x))), (2, 4)),
    "softmax over the units": (
        Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.first(x).softmax(1))),
        (2, 4),
    ),
    "output": (Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: (n.first(x), n.second(n.first(x)))), (2, 4)),
    "branch on a value": (
        Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: original(n, x) if x.sum() > 0 else x),
        (2, 4),
    ),
}
NOT_DEAD = {
    "sigmoid": (Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(torch.sigmoid(n.first(x)))), (2, 4)),
    "norm of units": (Net(nn.Linear(4, 6), nn.Linear(6, 2), normed, norm=nn.BatchNorm1d(6)), (2, 4)),
    "norm of positions": (Net(nn.Linear(4, 6), nn.Linear(6, 2), normed, norm=nn.BatchNorm1d(6)), (2, 6, 4)),
    "norm after flattening": (
        Net(
            nn.Conv2d(1, 3, 3),
            nn.Linear(12, 2),
            lambda n, x: n.second(n.norm(torch.flatten(n.first(x), 1))),
            norm=nn.BatchNorm1d(12),
        ),
        (2, 1, 4, 4),
    ),
    "number added": (Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.first(x) + 1)), (2, 4)),
    "number for each row added": (
        Net(
            nn.Linear(4, 6),
            nn.Linear(6, 2),
            lambda n, x: n.second(n.first(x) + n.shift),
            shift=nn.Parameter(torch.ones(3, 1)),
        ),
        (2, 3, 4),
    ),
    "exponential": (Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.first(x).exp())), (2, 4)),
    "bound above zero": (
        Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.first(x).clamp(min=0.1))),
        (2, 4),
    ),
    "norm without gains": (
        Net(
            nn.Linear(4, 6),
            nn.Linear(6, 2),
            lambda n, x: n.second(n.norm(n.first(x))),
            norm=nn.BatchNorm1d(6, affine=False),
        ),
        (2, 4),
    ),
    "layer on another axis": (
        Net(
            nn.Linear(4, 6),
            nn.Linear(6, 2),
            lambda n, x: n.second(n.across(n.first(x).transpose(1, 2)).transpose(1, 2)),
            across=nn.Linear(3, 3),
        ),
        (2, 3, 4),
    ),
}
NOT_UNREAD = {
    "sum of the units": (
        Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.first(x)) + n.first(x).sum(1, keepdim=True)), (2, 4)),
    "some of them added up": (
        Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.first(x)) + n.first(x)[:, :3].sum(1, keepdim=True)), (2, 4)),
    "product of activations": (
        Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: n.second(n.first(x)) + (n.first(x) @ n.first(x).mT).sum(1)[:, None]), (2, 4)),
}  # fmt: skip


def finalized(net: nn.Module) -> nn.Module:
    """In eval mode, with norms that do something."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            for gain in module.parameters():
                gain.data.uniform_(1, 2)
    return net.eval()


@pytest.mark.parametrize("case", list(CUT))
def test_units_are_found_and_cutting_the_dead_changes_nothing(case):
    net, shape = finalized(copy.deepcopy(CUT[case][0])), CUT[case][1]
    example = torch.randn(shape)
    with torch.no_grad():
        net.first.weight[[1, 4]] = 0
        net.first.bias[[1, 4]] = 0
        wanted = net(example)
    assert "first" in [group.name for group in PruneUnits().chosen(View(net, net, example))]
    assert PruneUnits().sweep(View(net, net, example)) == 2
    assert net.first.weight.shape[0] == 4 == len(net.first.bias)
    torch.testing.assert_close(net(example), wanted)


def busy(net):
    """The first unit is the least active, so that sorting finds another order."""
    with torch.no_grad():
        net.first.weight[0].flatten()[1:] = 0
        net.second.weight[:, 0] *= 0.5


@pytest.mark.parametrize("case", list(LEFT))
def test_units_are_left_alone_where_they_cannot_be_cut(case):
    net, shape = finalized(LEFT[case][0]), LEFT[case][1]
    busy(net)
    before = copy.deepcopy(net.state_dict())
    assert PruneUnits().sweep(View(net, net, torch.randn(shape))) == 0
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("case", list(CUT | NOT_DEAD | NOT_UNREAD))
def test_units_in_another_order_give_the_same_outputs(case):
    net, shape = (CUT | NOT_DEAD | NOT_UNREAD)[case]
    net, example = finalized(copy.deepcopy(net)), torch.randn(shape)
    busy(net)
    wanted, before = net(example), net.first.weight.detach().clone()
    PruneUnits().sweep(View(net, net, example))
    torch.testing.assert_close(net(example), wanted)
    assert case == "some of them added up" or not torch.equal(net.first.weight, before)


@pytest.mark.parametrize("case", list(NOT_DEAD))
def test_unit_whose_zero_becomes_another_value_is_not_dead(case):
    net, shape = finalized(NOT_DEAD[case][0]), NOT_DEAD[case][1]
    example = torch.randn(shape)
    with torch.no_grad():
        net.first.weight[1] = 0
        net.first.bias[1] = 0
        wanted = net(example)
    assert PruneUnits().sweep(View(net, net, example)) == 0
    torch.testing.assert_close(net(example), wanted)


@pytest.mark.parametrize("case", list(NOT_UNREAD))
def test_unit_that_something_other_than_a_weight_reads_is_not_dead(case):
    net, shape = finalized(NOT_UNREAD[case][0]), NOT_UNREAD[case][1]
    example = torch.randn(shape)
    with torch.no_grad():
        net.second.weight[:, 1] = 0
        wanted = net(example)
    assert PruneUnits().sweep(View(net, net, example)) == 0
    torch.testing.assert_close(net(example), wanted)


def test_units_stay_when_two_layers_share_a_weight():
    net = Net(nn.Linear(4, 4), nn.Linear(4, 4), original)
    net.second.weight = net.first.weight
    example = torch.randn(2, 4)
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


def test_forms_stay_when_units_change_places_and_go():
    net = Net(nn.Conv2d(1, 3, 3), nn.Linear(12, 2), flat).eval()
    example = torch.randn(2, 1, 6, 6)
    attach(net.first, "weight", Quantized.of(net.first.weight, 4, "channel"))
    mask = torch.rand(2, 12) > 0.4
    attach(net.second, "weight", Dense(net.second.weight).select(mask))
    rows, columns = net.first.weight.detach().clone(), net.second.weight.detach().clone()
    view = View(net, net, example)
    view.reorder({view.groups.free[0]: torch.tensor([2, 0, 1])})
    view.cut({view.groups.free[0]: torch.tensor([0, 1])})
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


def test_stage_on_a_network_that_cannot_be_traced_says_so():
    net = finalized(Net(nn.Linear(4, 6), nn.Linear(6, 2), lambda n, x: original(n, x) if x.sum() > 0 else x))
    data = Data(torch.randn(32, 4), torch.zeros(32, dtype=torch.long))
    with pytest.raises(BadNetwork, match="cannot be traced"):
        compress(net, Task(data, data, data, trial=True, device="cpu"), "prune/units")
