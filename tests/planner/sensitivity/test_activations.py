"""Rounding of activations and cuts of channels in the sensitivity, against what they really cost."""

import copy

import pytest
import torch
from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.methods.match_moments import MatchMoments
from cortado.network.compare.divergence import divergence_for
from cortado.network.view import View
from cortado.parts.activations.quantizer import drop_quantizer, sites
from cortado.planner.allocate.allocation_report import activation_report, channel_report
from cortado.planner.allocate.measured_plans import mean_divergences
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve
from cortado.planner.sensitivity.activations import activation_sensitivities, channel_sensitivities
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME

FORECAST = SizeAccuracyCurve((), 0, 90.0, 1)


def correlation(pairs):
    ranks = [torch.tensor(column).argsort().argsort().double() for column in zip(*pairs, strict=True)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_damages_of_roundings_rank_as_what_they_really_cost(net):
    """Each rounding alone, all others taken off; several bits."""
    made = BY_NAME[net]
    original, task = made.make(), made.task()
    divergence, pairs = divergence_for(original, task), []
    for bits in (3, 4, 6):
        line = f"quantize/activations bits={bits} edges={bits} sums={bits}"
        rounded = copy.deepcopy(original)
        for stage in read_recipe(line).stages:
            stage.apply(View(rounded, original, task.example), task)
        for places, predicted_kl in activation_sensitivities(original, original, task, line, 64).items():
            alone = copy.deepcopy(rounded)
            modules = dict(alone.named_modules())
            for path, side in sites(rounded):
                if (path, side) not in places:
                    drop_quantizer(modules[path], side)
            MatchMoments().apply(View(alone, original, task.example, reference=original), task)
            pairs.append((predicted_kl, mean_divergences(original, [alone], task.calibration, divergence)[0]))
    assert len(pairs) >= 12 and correlation(pairs) > 0.8


def test_a_coarser_grid_costs_more_and_the_network_stays_as_it_is():
    made = BY_NAME["residual"]
    original, task = made.make(), made.task()
    before = copy.deepcopy(original.state_dict())
    costs = [
        sum(
            activation_sensitivities(
                original, original, task, f"quantize/activations bits={bits} edges={bits} sums={bits}", 16
            ).values()
        )
        for bits in (8, 5, 3)
    ]
    assert costs == sorted(costs) and costs[0] > 0 and costs[1] > 10 * costs[0]
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items()) and not sites(
        original
    )


def test_an_error_that_leans_to_one_side_adds_up():
    """A rounding that takes the same from all places is no noise: its predicted KL is that of one shift of them all."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    inputs = torch.rand(64, 16) * 0.2 + 0.4
    data = Data(inputs, torch.zeros(64, dtype=torch.int64))
    task = Task(data, data, data, calibration=data)
    with torch.no_grad():
        network[1].weight[0] += 1.0
    found = activation_sensitivities(
        network, network, task, "quantize/activations bits=2 edges=2 sums=2 range=full", 64
    )
    places = next(key for key in found if ("1", "output") not in key)
    made = copy.deepcopy(network)
    for stage in read_recipe("quantize/activations bits=2 edges=2 sums=2 range=full").stages:
        stage.apply(View(made, network, task.example), task)
    activation = sites(made)[places[0]]
    error = (activation(inputs) - inputs).detach()
    p = (network(inputs) / 2).softmax(1).detach().double()
    moved = (error @ network[1].weight.detach().T).double()
    exact = 0.5 * ((p * moved.square()).sum(1) - (p * moved).sum(1).square()).mean()
    assert found[places] == pytest.approx(float(exact), rel=0.35)


def test_damages_of_channels_rank_as_what_cuts_cost():
    made = BY_NAME["depthwise"]
    original, task = made.make(), made.task()
    view = View(copy.deepcopy(original), original, task.example)
    divergence, pairs = divergence_for(original, task), []
    for number, units in enumerate(channel_sensitivities(view, task, view.groups.free)):
        for unit, predicted_kl in enumerate(units.tolist()):
            small = copy.deepcopy(original)
            inner = View(small, original, task.example, reference=original)
            group = inner.groups.free[number]
            inner.cut({group: torch.tensor([one for one in range(group.count) if one != unit])})
            MatchMoments().apply(inner, task)
            pairs.append((predicted_kl, mean_divergences(original, [small], task.calibration, divergence)[0]))
    assert len(pairs) == 14 and correlation(pairs) > 0.7


@pytest.mark.parametrize("net", sorted(BY_NAME))
def test_every_network_shows_what_rounding_and_cutting_cost(net):
    made = BY_NAME[net]
    original, task = made.make(), made.task()
    activations, channels = activation_report(FORECAST, original, task), channel_report(FORECAST, original, task)
    assert "8 bits" in activations and "4 bits" in activations
    assert "channels cut by 25%" in channels
