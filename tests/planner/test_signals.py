"""Rounding of signals and cuts of channels in the currency, against what they really cost."""

import copy

import pytest
import torch
from torch import nn

from cortado.methods.match import Match
from cortado.network.divergence import nats_for
from cortado.network.view import View
from cortado.planner.explained import channels_explained, signals_explained
from cortado.planner.forecast import Forecast, mean_divergences
from cortado.planner.signals import channel_damages, signal_damages
from cortado.recipe import read
from cortado.signals.signal import drop_signal, sites
from cortado.task import Data, Task
from tests.laws.tiny_nets import BY_NAME

FORECAST = Forecast((), 0, 90.0, 1)


def correlation(pairs):
    ranks = [torch.tensor(column).argsort().argsort().double() for column in zip(*pairs, strict=True)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_damages_of_roundings_rank_as_what_they_really_cost(net):
    """Each rounding alone, all others taken off; several bits."""
    made = BY_NAME[net]
    plain, task = made.make(), made.task()
    nats, pairs = nats_for(plain, task), []
    for bits in (3, 4, 6):
        line = f"quantize/signals bits={bits} edges={bits} sums={bits}"
        rounded = copy.deepcopy(plain)
        for stage in read(line).stages:
            stage.apply(View(rounded, plain, task.example), task)
        for places, damage in signal_damages(plain, plain, task, line, 64).items():
            alone = copy.deepcopy(rounded)
            modules = dict(alone.named_modules())
            for path, side in sites(rounded):
                if (path, side) not in places:
                    drop_signal(modules[path], side)
            Match().apply(View(alone, plain, task.example, reference=plain), task)
            pairs.append((damage, mean_divergences(plain, [alone], task.calibration, nats)[0]))
    assert len(pairs) >= 12 and correlation(pairs) > 0.8


def test_a_coarser_grid_costs_more_and_the_network_stays_as_it_is():
    made = BY_NAME["residual"]
    plain, task = made.make(), made.task()
    before = copy.deepcopy(plain.state_dict())
    costs = [
        sum(signal_damages(plain, plain, task, f"quantize/signals bits={bits} edges={bits} sums={bits}", 16).values())
        for bits in (8, 5, 3)
    ]
    assert costs == sorted(costs) and costs[0] > 0 and costs[1] > 10 * costs[0]
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items()) and not sites(plain)


def test_an_error_that_leans_to_one_side_adds_up():
    """A rounding that takes the same from all places is no noise: its damage is that of one shift of them all."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    inputs = torch.rand(64, 16) * 0.2 + 0.4
    data = Data(inputs, torch.zeros(64, dtype=torch.int64))
    task = Task(data, data, data, calibration=data)
    with torch.no_grad():
        network[1].weight[0] += 1.0
    found = signal_damages(network, network, task, "quantize/signals bits=2 edges=2 sums=2 range=full", 64)
    places = next(key for key in found if ("1", "output") not in key)
    made = copy.deepcopy(network)
    for stage in read("quantize/signals bits=2 edges=2 sums=2 range=full").stages:
        stage.apply(View(made, network, task.example), task)
    signal = sites(made)[places[0]]
    error = (signal(inputs) - inputs).detach()
    p = (network(inputs) / 2).softmax(1).detach().double()
    moved = (error @ network[1].weight.detach().T).double()
    exact = 0.5 * ((p * moved.square()).sum(1) - (p * moved).sum(1).square()).mean()
    assert found[places] == pytest.approx(float(exact), rel=0.35)


def test_damages_of_channels_rank_as_what_cuts_cost():
    made = BY_NAME["depthwise"]
    plain, task = made.make(), made.task()
    view = View(copy.deepcopy(plain), plain, task.example)
    nats, pairs = nats_for(plain, task), []
    for number, units in enumerate(channel_damages(view, task, view.groups.free)):
        for unit, damage in enumerate(units.tolist()):
            small = copy.deepcopy(plain)
            inner = View(small, plain, task.example, reference=plain)
            group = inner.groups.free[number]
            inner.cut({group: torch.tensor([one for one in range(group.count) if one != unit])})
            Match().apply(inner, task)
            pairs.append((damage, mean_divergences(plain, [small], task.calibration, nats)[0]))
    assert len(pairs) == 14 and correlation(pairs) > 0.7


@pytest.mark.parametrize("net", sorted(BY_NAME))
def test_every_network_is_told_what_rounding_and_cutting_cost(net):
    made = BY_NAME[net]
    plain, task = made.make(), made.task()
    signals, channels = signals_explained(FORECAST, plain, task), channels_explained(FORECAST, plain, task)
    assert "8 bits" in signals and "4 bits" in signals
    assert "25% cut of channels" in channels
