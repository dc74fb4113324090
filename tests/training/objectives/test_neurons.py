"""Informative neurons: which are chosen, and what is learned from them."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadTask, BadValue
from cortado.methods.finetune import Finetune
from cortado.network.view import View
from cortado.task.task import Data, Task
from cortado.training.objectives.neurons import Neurons, between_classes, informative
from tests.laws.tiny_nets import BY_NAME
from tests.training.objectives.given import given_step, random_numbers, total

NET = BY_NAME["mlp"]


def neurons_and_classes() -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, a neuron that tells classes, its negative copy, a weaker one of its own, and a dead one."""
    labels = torch.arange(60) % 3
    noise = random_numbers(60, 5)
    telling = (labels == 0) * 3.0 + 0.3 * noise[:, 1]
    weaker = (labels == 1) * 1.0 + 0.5 * noise[:, 3]
    return torch.stack([noise[:, 0], telling, -2 * telling, weaker, torch.zeros(60)], 1), labels


def test_share_of_variance_is_that_of_an_analysis_of_variance():
    values, labels = neurons_and_classes()
    found = between_classes(values, labels)
    inside = sum((values[labels == one] - values[labels == one].mean(0)).square().sum(0) for one in range(3))
    whole = (values - values.mean(0)).square().sum(0)
    torch.testing.assert_close(found[:4], (1 - inside / whole)[:4])
    assert found[1] == pytest.approx(float(found[2])) and found[1] > 0.9 > found[3] > found[0] and found[4] == 0


def test_copies_of_a_neuron_are_left_out_unless_redundancy_is_free():
    values, labels = neurons_and_classes()
    assert informative(values, labels, 2, 1.0).tolist() == [1, 3] or informative(values, labels, 2, 1.0).tolist() == [
        2,
        3,
    ]
    assert informative(values, labels, 2, 0.0).tolist() == [1, 2]
    assert informative(values, labels, 5, 1.0).tolist() == [0, 1, 2, 3, 4]


def view_of_mlp() -> View:
    network = NET.make()
    return View(network, copy.deepcopy(network), NET.example, survivors={})


def test_network_of_the_same_width_learns_the_same_neurons():
    view = view_of_mlp()
    objective = Neurons(at="0", keep=0.25).with_teachers([view.original], view, NET.task())
    assert len(objective.chosen[0]) == 4
    mine, wanted = random_numbers(5, 16).requires_grad_(), random_numbers(5, 16, seed=1)
    step = given_step(taps={"0": mine}, taught_taps={"0": wanted})
    made = objective.modules(step)
    value = total(objective, given_step(taps={"0": mine}, taught_taps={"0": wanted}, modules=made))
    chosen = objective.chosen[0]
    torch.testing.assert_close(value, (mine - wanted)[:, chosen].square().mean())
    (gradient,) = torch.autograd.grad(value, mine)
    assert sorted(gradient.abs().sum(0).nonzero().flatten().tolist()) == chosen.tolist()


def test_network_of_another_width_learns_them_through_a_linear_map():
    view = view_of_mlp()
    objective = Neurons(at="0", of="2", keep=0.5).with_teachers([view.original], view, NET.task())
    taps, taught = {"0": random_numbers(5, 16)}, {"2": random_numbers(5, 4)}
    made = objective.modules(given_step(taps=taps, taught_taps=taught))
    assert isinstance(made["mine0"], nn.Linear) and made["mine0"].out_features == len(objective.chosen[0])


def test_finetuning_with_neurons_lowers_their_error():
    view = view_of_mlp()
    with torch.no_grad():
        view.network[0].weight.mul_(0.5)
    Finetune(epochs=10, lr=0.02, objectives=({"neurons": {"at": "0"}},)).apply(view, NET.task())
    curve = view.curves["neurons"]
    assert curve[-1] < 0.5 * curve[0]


def test_neurons_that_were_not_chosen_and_targets_without_classes_are_told():
    step = given_step(taps={"0": random_numbers(5, 16)}, taught_taps={"0": random_numbers(5, 16)})
    with pytest.raises(BadValue, match="it has not chosen neurons yet"):
        Neurons(at="0").modules(step)
    view, data = view_of_mlp(), Data(NET.task().train.inputs, torch.randn(len(NET.task().train.inputs), 4))
    task = Task(data, data, data, loss=nn.functional.mse_loss, trial=True)
    with pytest.raises(BadTask, match="it needs one class for each sample"):
        Neurons(at="0").with_teachers([view.original], view, task)
    with pytest.raises(BadValue, match="the teacher has no module 'nowhere'"):
        Neurons(at="nowhere").with_teachers([view.original], view, NET.task())
