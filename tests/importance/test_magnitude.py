"""Magnitude of units against the sums written out by hand, also where a producer's units lie on its second axis."""

import torch
from torch import nn

from cortado.importance.magnitude import Magnitude
from cortado.network.view import View
from cortado.task.task import Data, Task


def worth_of(network, example):
    """The units' worth of the first group, and the network."""
    view = View(network.eval(), network, example)
    data = Data(example, torch.zeros(len(example), dtype=torch.int64))
    (units,) = Magnitude().of_units(view.groups.free, view, Task(data, data, data))
    return units


def test_units_of_a_convolution_are_worth_their_kernels():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1)).requires_grad_(False)
    by_hand = torch.stack([network[0].weight[unit].abs().sum() for unit in range(5)])
    torch.testing.assert_close(worth_of(network, torch.randn(2, 3, 6, 6)), by_hand / by_hand.mean())


def test_units_of_a_transposed_convolution_lie_on_its_second_axis():
    torch.manual_seed(0)
    network = nn.Sequential(nn.ConvTranspose2d(3, 5, 2, bias=False), nn.ReLU(), nn.Conv2d(5, 2, 1))
    network.requires_grad_(False)
    by_hand = torch.stack([network[0].weight[:, unit].abs().sum() for unit in range(5)])
    torch.testing.assert_close(worth_of(network, torch.randn(2, 3, 6, 6)), by_hand / by_hand.mean())
