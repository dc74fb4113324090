"""What the curvature cannot vouch for is measured, in the same nats, and the network is as it was afterwards."""

import copy
import math

import pytest
import torch
from torch import nn

from cortado.forms.hold import form_of
from cortado.forms.low_rank import LowRank
from cortado.methods.factorize.svd import FactorizeSvd
from cortado.network.divergence import Nats, answers, divergence, nats_for
from cortado.network.view import View
from cortado.planner.candidates import Candidate, believed, changed_by, every_candidate
from cortado.planner.currency import prices
from cortado.planner.doubt import DOUBTED, HOPELESS, LEAST_SURE, SAMPLES, SURE, TEMPERATURE, Doubt
from cortado.task import Data, Task
from tests.laws.tiny_nets import BY_NAME


def of_net(name):
    made = BY_NAME[name]
    network, task = made.make(), made.task()
    view = View(network, network, made.example)
    weights = [weight for weight in view.weights() if len(weight.shape) > 1]
    return network, task, weights, prices(view, weights, task, 16)


def test_a_doubted_change_costs_what_it_does_alone():
    """A layer without bias or norm, so that nothing is given back: the divergence is that of the changed network, softened."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)).eval()
    data = Data(torch.randn(64, 4), torch.zeros(64, dtype=torch.int64))
    task = Task(data, data, data, calibration=data)
    view = View(network, network, task.example)
    price = prices(view, view.weights("2.weight"), task, 16)["2.weight"]
    doubt = Doubt(network, task, Nats())
    changed = torch.zeros(3, 6)
    found = doubt.measured("2.weight", price, changed, view.weights("2.weight")[0].form, DOUBTED * 2)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[2].weight.zero_()
    wanted, given = (answers(one, data.inputs[:SAMPLES]) / TEMPERATURE for one in (network, other))
    assert found == pytest.approx(float(divergence(wanted, given).mean()), rel=1e-4)


@pytest.mark.parametrize("net", ["residual", "transformer", "recurrent"])
def test_the_twin_is_as_it_was_after_every_change(net):
    network, task, weights, priced = of_net(net)
    doubt = Doubt(network, task, nats_for(network, task))
    inputs = task.calibration.first(8).inputs
    before = answers(doubt.twin, inputs)
    for weight in weights:
        doubt.measured(weight.path, priced[weight.path], 0 * weight.dense(), weight.form, 1.0)
        assert torch.equal(answers(doubt.twin, inputs), before), weight.path
    assert not any(len(layer._forward_hooks) for layer in doubt.twin.modules())


def test_the_mean_of_outputs_is_given_back():
    """Weights that read a constant lose nothing but the mean, which match gives back: the change costs nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).eval()
    inputs = torch.randn(64, 4)
    inputs[:, 0] = 2.0
    data = Data(inputs, torch.zeros(64, dtype=torch.int64))
    task = Task(data, data, data, calibration=data)
    view = View(network, network, task.example)
    weight = view.weights("0.weight")[0]
    price = prices(view, [weight], task, 16)["0.weight"]
    changed = weight.dense().clone()
    changed[:, 0] += 3.0
    assert Doubt(network, task, Nats()).measured("0.weight", price, changed, weight.form, 1.0) < 1e-6


def test_sure_changes_give_one_factor_and_doubted_ones_follow_it():
    network, task, weights, priced = of_net("residual")
    doubt = Doubt(network, task, nats_for(network, task))
    assert doubt.factor is None
    middle = (SURE * DOUBTED) ** 0.5
    for weight in weights[:LEAST_SURE]:
        changed = weight.dense() + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        assert doubt.measured(weight.path, priced[weight.path], changed, weight.form, middle) is None
    assert doubt.factor == pytest.approx(math.exp(sorted(doubt.known.values())[LEAST_SURE // 2]))
    one = Candidate("way", 10, 0.5)
    assert believed(one, 0.2, doubt.factor).damage == pytest.approx(0.2 * doubt.factor)
    assert believed(one, None, doubt.factor) is one and believed(one, 0.2, None) is one


def test_low_rank_is_doubted_however_little_it_is_predicted_to_cost():
    network, task, weights, priced = of_net("residual")
    made = copy.deepcopy(network)
    FactorizeSvd(rank=2).apply(View(made, network, task.example), task)
    held = next(one for one in View(made, network, task.example).all_weights if isinstance(one.form, LowRank))
    doubt = Doubt(network, task, nats_for(network, task))
    assert doubt.measured(held.path, priced[held.path], held.dense(), held.form, 1e-9) is not None


def test_a_way_counts_only_for_weights_that_all_its_stages_change():
    """Low rank leaves small weights alone; what rounds them afterwards is another way."""
    network, task, _, priced = of_net("residual")
    way = "factorize/svd rank=4 | share/kmeans bits=3"
    weights = changed_by(network, network, task, way)
    assert weights and all(isinstance(form_of(*one.places[0]), LowRank) for one in weights)
    found = every_candidate(View(network, network, task.example), task, priced, [way, "share/kmeans bits=3"])
    assert {len(some) for some in found.values()} == {1, 2}


def test_what_is_hopeless_is_not_measured(monkeypatch):
    """What costs several nats by prediction, or several times as much as something smaller."""
    network, task, _, priced = of_net("residual")
    seen = []
    real = Doubt.measured

    def watched(self, path, price, changed, form, damage):
        seen.append((path, damage))
        return real(self, path, price, changed, form, damage)

    monkeypatch.setattr(Doubt, "measured", watched)
    ways = ["quantize/weights bits=4", "share/kmeans bits=1", "prune/weights keep=0.05 | quantize/weights bits=8"]
    found = every_candidate(View(network, network, task.example), task, priced, ways)
    assert seen and all(damage <= HOPELESS for _, damage in seen) and len(seen) < sum(map(len, found.values()))
