"""Shares of nonzero activations, on networks where they are known beforehand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.network.statistics.activity import measure_activity


def signs(columns):
    """A linear layer that copies its input where `columns` is 1, negates it where -1, and drops it where 0."""
    layer = nn.Linear(len(columns), len(columns), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor(columns, dtype=torch.float32)))
    return layer


class Chain(nn.Module):
    """Two layers with a ReLU and a norm between them, or a sum of two layers."""

    def __init__(self, summed=False):
        super().__init__()
        self.one, self.norm, self.two = signs([1, 1, 1, -1]), nn.BatchNorm1d(4), signs([1, 1, 0, -1])
        self.three = signs([1, 1, 1, 1])
        self.summed = summed

    def forward(self, activation):
        if self.summed:
            return self.three(functional.relu(self.one(activation)) + functional.relu(self.two(activation)))
        return functional.relu(self.two(functional.relu_(self.norm(self.one(activation)))))


def test_activity_is_what_the_next_layer_reads():
    activity = measure_activity(Chain(), torch.ones(10, 4))
    assert set(activity) == {"one", "two"}
    # One input in four is negated, the ReLU makes it zero.
    assert activity["one"].inputs is None and activity["one"].outputs == 0.75
    # Of the three that come in, one is dropped; nobody reads further.
    assert activity["two"].inputs == 0.75 and activity["two"].outputs == 0.5


def test_activity_counts_all_data_in_parts():
    data = torch.ones(10, 4)
    data[:4] = -1
    whole, parts = (measure_activity(Chain(), data, chunk) for chunk in (128, 3))
    assert whole == parts
    assert whole["one"].outputs == pytest.approx((4 * 1 + 6 * 3) / 40)


def test_activity_does_not_credit_a_sum_to_either_layer():
    activity = measure_activity(Chain(summed=True), torch.ones(10, 4))
    # The sum is nonzero in three columns; that is what layer three reads, but of neither layer the share alone.
    assert activity["three"].inputs == 0.75
    assert activity["one"].outputs == 1.0
    assert activity["two"].outputs == 0.75


def test_activity_takes_tuples_and_dicts_of_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = signs([1, -1]), signs([1, 1])

        def forward(self, left, right):
            return self.two(functional.relu(self.one(left)) * right)

    left, right = torch.ones(6, 2), torch.ones(6, 2)
    by_position = measure_activity(Two(), (left, right), chunk=4)
    by_name = measure_activity(Two(), {"left": left, "right": right}, chunk=4)
    assert by_position == by_name and by_name["two"].inputs == 0.5


def test_activity_leaves_the_network_as_it_was():
    network = Chain().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure_activity(network, torch.ones(10, 4))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_activity_refuses_data_it_cannot_use():
    with pytest.raises(BadValue, match="no sample"):
        measure_activity(Chain(), torch.ones(0, 4))
    with pytest.raises(BadNetwork, match="fails on inputs"):
        measure_activity(Chain(), torch.ones(3, 5))
