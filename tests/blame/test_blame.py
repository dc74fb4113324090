"""Blame finds the layer that was harmed, its figures add up, and a set in floats reaches the error that is asked for."""

import copy
import json

import pytest
import torch
from torch import nn

from cortado.blame.blame import blame, fewest
from cortado.errors import BadNetwork
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import OUTPUT, put_quantizer, quantizer_at, take_quantizers
from cortado.task.data import Data
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Task


def rounded_pair():
    """A network of four layers, with the same in integers, and samples."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)
    ).eval()  # fmt: skip
    samples = torch.randn(16, 3, 8, 8)
    data = [Data(samples + number, torch.zeros(16, 4)) for number in range(3)]
    task = Task(*data, loss=nn.functional.mse_loss, outputs=Numbers(), calibration=Data(samples, torch.zeros(16, 4)))
    small = copy.deepcopy(network)
    for method in (QuantizeWeights(bits=8), QuantizeActivations(images=16, range="full")):
        method.apply(View(small, network, task.example), task)
    return network, small, samples[:4]


def error_of(network, original, samples):
    with torch.no_grad():
        wanted = original(samples)
        return float((network(samples) - wanted).square().mean().sqrt() / wanted.std())


def test_the_layer_that_was_harmed_stands_first_and_alone_suffices():
    network, small, samples = rounded_pair()
    fine = blame(network, small, samples).error
    spoiled = quantizer_at(small[3], OUTPUT)
    put_quantizer(small[3], OUTPUT, Affine(float(spoiled.scale.detach()) * 40, 0, 8))
    found = blame(network, small, samples, wanted=2 * fine)
    # The output of the second layer is read by the third.
    assert {one.path for one in found.rows[:2]} == {"2", "4"} and found.error > 5 * fine
    assert found.floats is not None and set(found.floats) <= {"2", "4"} and found.rest < 1e-6
    assert found.error == pytest.approx(error_of(small, network, samples), rel=1e-3)
    assert json.loads(found.json())["rows"][0]["path"] == found.rows[0].path and "in floats (" in found.text()


def test_alone_is_the_error_of_a_network_in_which_only_that_layer_is_rounded():
    network, small, samples = rounded_pair()
    found = {one.path: one for one in blame(network, small, samples).rows}
    alone = copy.deepcopy(network)
    alone[0].weight.data = small[0].weight.detach().clone()
    for place in ((0, "input"), (1, "output")):
        if (quantizer := quantizer_at(small[place[0]], place[1])) is not None:
            put_quantizer(alone[place[0]], place[1], quantizer)
    assert set(found) == {"0", "2", "4", "7"}
    # The grid behind the first layer is also that in front of the second.
    assert found["0"].alone == pytest.approx(error_of(alone, network, samples), rel=1e-3)
    assert sum(one.multiply_adds for one in found.values()) == pytest.approx(1)


def test_weights_alone_are_judged_too_and_networks_are_left_as_they_are():
    network, small, samples = rounded_pair()
    take_quantizers(small)
    before = copy.deepcopy(small.state_dict())
    found = blame(network, small, samples)
    assert 0 < found.error < 0.05 and found.rest < 1e-6
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_networks_that_do_not_correspond_are_refused():
    network, small, samples = rounded_pair()
    with pytest.raises(BadNetwork, match="no layer of this network is rounded"):
        blame(network, network, samples)
    other = copy.deepcopy(network)
    nn.init.normal_(other[2].weight)
    with pytest.raises(BadNetwork, match="the weight of 2 was not made from that of the original"):
        blame(other, small, samples)


def test_the_fewest_are_found_by_halving():
    asked = []

    def error(count):
        asked.append(count)
        return 1.0 / (1 + count)

    assert fewest(error, 100, 0.1) == 9 and len(set(asked)) < 12
    assert fewest(error, 100, 1.0) == 0 and fewest(error, 100, 0.001) is None
