"""View: the weights of a network and the editing operations to change them."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.network.statistics.gradients import gradients, released
from cortado.network.view import View, working_copy
from cortado.network.weight import parameter_places
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.forms.attach import attached_names, form_of
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.quantized import Quantized
from tests.laws.tiny_nets import BY_NAME, TINY_NETS


@pytest.mark.parametrize("net", [net.name for net in TINY_NETS])
def test_places_are_the_parameters_in_their_order_held_or_not(net):
    network = BY_NAME[net].make()
    wanted = [name for name, _ in network.named_parameters()]
    assert [weight.path for weight in parameter_places(network)] == wanted
    for weight in parameter_places(network):
        weight.map_values(lambda values: Quantized.of(values, 4))
    assert sorted(weight.path for weight in parameter_places(network)) == sorted(wanted)


def test_recode_goes_to_every_place_of_a_shared_weight():
    network = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    network[1].weight = network[0].weight
    (weight,) = [w for w in View(network, network, None).weights() if len(w.places) == 2]
    weight.map_values(lambda values: Codebook(torch.tensor([0.5]), torch.zeros(values.shape, dtype=torch.long)))
    assert form_of(network[0], "weight") is form_of(network[1], "weight")
    assert weight.shape == (5, 3) and bool((network[1].weight == 0.5).all())


def test_wrap_puts_a_block_in_and_takes_a_fresh_picture():
    network = nn.Sequential(nn.Sequential(nn.Linear(3, 4)), nn.Linear(4, 2))
    view = View(network, network, torch.zeros(1, 3))
    assert [weight.path for weight in view.weights()] == ["0.0.weight", "1.weight"]
    view.wrap("0.0", Bypass())
    assert [weight.path for weight in view.weights()] == ["1.weight"]
    for path, message in (("7", "there is no module '7' to wrap"), ("", "in the place of the whole network")):
        with pytest.raises(BadNetwork, match=message):
            view.wrap(path, Bypass())


def test_working_copy_is_apart_and_refuses_what_cannot_be_copied():
    network = nn.Linear(2, 2)
    duplicate = working_copy(network)
    with torch.no_grad():
        duplicate.weight.zero_()
    assert float(network.weight.detach().abs().sum()) > 0

    class Closed(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("not me")

    with pytest.raises(BadNetwork, match=r"Closed cannot be copied \(not me\)\. Give it a __deepcopy__"):
        working_copy(Closed(2, 2))


@pytest.mark.parametrize("net", [net.name for net in TINY_NETS])
def test_gradients_of_dense_values_are_those_of_the_original_network(net):
    tiny = BY_NAME[net]
    network, task = tiny.make(), tiny.task()
    for weight in View(network, network, None).weights():
        weight.map_values(lambda values: Quantized.of(values, 6))
    original = released(network)
    assert not any(attached_names(layer) for layer in original.modules())
    view = View(network, network, tiny.example)
    weights = view.weights()
    data = task.train.first(8)
    (found,) = gradients(view, weights, data, 8, task.loss)
    wanted = dict(original.named_parameters())
    task.loss(original(data.inputs), data.targets).backward()
    for weight, gradient in zip(weights, found, strict=True):
        torch.testing.assert_close(gradient, wanted[weight.path].grad)


def test_released_keeps_ties_and_leaves_the_network_alone():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).eval()
    network[1].weight = network[0].weight
    View(network, network, None).weights()[0].map_values(lambda values: Quantized.of(values, 4))
    before = copy.deepcopy(network.state_dict())
    duplicate = released(network)
    assert duplicate[0].weight is duplicate[1].weight
    assert torch.equal(duplicate(torch.ones(1, 3)), network(torch.ones(1, 3)))
    assert list(network.state_dict()) == list(before)
