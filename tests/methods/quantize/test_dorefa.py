"""quantize/dorefa: weights, activations and gradients on fixed grids; what is clipped and what is left out is said."""

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.errors import BadNetwork
from cortado.methods.finetune import Finetune
from cortado.methods.quantize.dorefa import QuantizeDorefa
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.gradients import Gradients
from cortado.parts.activations.quantizer import quantizer_at, sites
from cortado.parts.activations.unit import Unit
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.squashed import Squashed
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


def applied(method, net=NET):
    network = net.make()
    view = View(network, net.make(), net.example)
    method.apply(view, net.task())
    return network, view


def test_weights_activations_and_gradients_between_the_edges():
    network, _ = applied(QuantizeDorefa(bits=1, activations=2, gradients=6))
    found = sites(network)
    assert [s.bits() for s in found.values() if isinstance(s, Unit)] == [2, 2]
    assert {path for (path, side), s in found.items() if isinstance(s, Gradients)} == {"first", "second"}
    assert isinstance(network.second.held_weight, Squashed) and isinstance(network.stem.held_weight, LearnedStep)


def test_zero_bits_leave_gradients_and_activations_alone():
    assert not sites(applied(QuantizeDorefa(activations=0, gradients=0))[0])
    assert not any(isinstance(s, Gradients) for s in sites(applied(QuantizeDorefa(gradients=0))[0]).values())


def test_an_output_that_is_rounded_already_rounds_its_gradient_itself():
    torch.manual_seed(0)
    make = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(64, 3)
    )
    network, data = make(), Data(torch.randn(8, 1, 6, 6), torch.arange(8) % 3)
    task = Task(data, data, data, batch=8)
    QuantizeDorefa(gradients=5).apply(View(network, network, task.example), task)
    there = quantizer_at(network[2], "output")
    assert isinstance(there, Unit) and there.gradients == 5


def test_what_is_negative_is_clipped_and_said():
    network, view = applied(QuantizeDorefa(), BY_NAME["signed"])
    assert "2 activations have negative values, clipped at 0; the first is the input of first." in view.notes


def test_activation_that_is_never_above_zero_is_refused():
    class Below(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.c(torch.relu(self.b(-torch.relu(self.a(x)))))

    torch.manual_seed(0)
    network, data = Below(), Data(torch.randn(16, 4), torch.arange(16) % 2)
    task = Task(data, data, data, batch=8)
    with pytest.raises(BadNetwork, match="the input of b is never above 0"):
        QuantizeDorefa().apply(View(network, network, task.example), task)


def test_gradients_are_rounded_while_training_and_gone_afterwards():
    made, _ = compress(
        NET.make(), NET.task(), [QuantizeDorefa(bits=1, activations=1, gradients=2), Finetune(epochs=0.5)]
    )
    assert {type(quantizer) for quantizer in sites(made).values()} == {Affine}
    assert len(made.first.weight.unique()) == 2
    duplicate, _ = compress(
        NET.make(), NET.task(), [QuantizeDorefa(bits=1, activations=1, gradients=0), Finetune(epochs=0.5)]
    )
    assert not torch.equal(made.stem.weight, duplicate.stem.weight)
