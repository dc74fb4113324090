"""Optimizers: the step of a grid learns in proportion to its size."""

import pytest
import torch
from torch import nn

from cortado.parts.forms.attach import attach
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Task
from cortado.training.loop import train
from cortado.training.optimizers import groups_of
from cortado.training.training import Training


def quantized():
    """A layer in 4 bits, whose scale a batch norm makes meaningless, and a head."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    attach(network[0], "weight", Quantized.of(network[0].weight.detach() / 10, 4))
    return network


def scale_of(network):
    return next(one for one in network.modules() if isinstance(one, Quantized)).scale


def trained(**knobs):
    """The network after 200 steps, with the mean loss of the last epoch in training and the loss in eval mode."""
    network = quantized()
    data = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 4
    task = Task(data, data, data, batch=16, device="cpu", trial=True)
    loss = train(network, task, Training(epochs=50, **knobs)).loss
    with torch.no_grad():
        return network, loss, float(task.loss(network(data[0]), data[1]))


@pytest.mark.parametrize("knobs", [{"lr": 3e-3}, {"lr": 3e-3, "optimizer": "adamw"}, {"lr": 0.05, "optimizer": "sgd"}])
def test_scales_before_a_batch_norm_do_not_wander_to_nothing(knobs):
    before = scale_of(quantized()).detach()
    network, loss, afterwards = trained(**knobs)
    assert bool((scale_of(network).detach() / before - 1).abs().max() > 0)
    assert bool(((scale_of(network).detach() / before).log2().abs() <= 1.0 + 1e-6).all())
    assert afterwards == pytest.approx(loss, abs=0.3)


def test_rates_are_in_proportion_for_adam_alone():
    network = quantized()
    (others, scales) = groups_of(network, Training(lr=0.5))
    size = float(scale_of(network).detach().mean())
    assert scales["params"][0] is scale_of(network) and scales["lr"] == pytest.approx(0.5 * 10 * size)
    assert "lr" not in others and len(others["params"]) == len(list(network.parameters())) - 1
    assert groups_of(network, Training(lr=0.5, optimizer="sgd"))[1]["lr"] == 0.5
