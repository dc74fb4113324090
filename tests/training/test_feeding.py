"""Feeding: what the output of a layer is computed from, by the order of calls and the way of the gradient."""

import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.training.feeding import feeding, only_feeding
from tests.laws.tiny_nets import BY_NAME


class Shuffled(nn.Module):
    """Layers that are named in another order than they run in; one runs twice, one beside the others."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.beside, self.twice, self.norm, self.begin = (
            nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4),
        )  # fmt: skip
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, inputs):
        inside, beside = self.twice(self.begin(inputs)), self.beside(inputs)
        return self.last(self.norm(self.twice(inside)) + beside) + self.shift


def named(network: nn.Module, parameters) -> set[str]:
    """The layers that parameters belong to; a network's own by their names."""
    found = {id(one) for one in parameters}
    return {
        name.removesuffix(".weight").removesuffix(".bias")
        for name, one in network.named_parameters()
        if id(one) in found
    }


@pytest.mark.parametrize(
    ("tap", "fed", "later"),
    [
        ("begin", {"begin"}, {"last", "norm", "twice", "beside"}),
        ("beside", {"beside"}, {"last", "norm"}),
        ("twice#1", {"begin", "twice"}, {"last", "norm", "beside"}),
        ("twice#2", {"begin", "twice"}, {"last", "norm"}),
        ("norm", {"begin", "twice", "norm"}, {"last"}),
        ("last", {"begin", "beside", "twice", "norm", "last"}, set()),
    ],
)
def test_calls_and_gradients_decide_and_not_names(tap, fed, later):
    network = Shuffled()
    found = feeding(network, tap, torch.randn(2, 4))
    assert named(network, found.parameters) == fed
    assert named(network, found.others) == {*dict(network.named_children()), "shift"} - fed
    names = {id(module): name for name, module in network.named_modules()}
    assert {names[id(module)] for module in found.later} == later


def test_layers_inside_a_container_and_weights_that_are_read_without_a_call_feed():
    network = BY_NAME["transformer"].make()
    fed = named(network, feeding(network, "encoder.layers.0", BY_NAME["transformer"].example).parameters)
    assert "encoder.layers.0.self_attn.out_proj" in fed and "encoder.layers.0.norm2" in fed and "head" not in fed
    network = BY_NAME["tied"].make()
    assert named(network, feeding(network, "second", BY_NAME["tied"].example).others) == {"head"}


def test_a_frozen_parameter_does_not_count_as_trainable():
    network = BY_NAME["mlp"].make()
    network[0].requires_grad_(False)
    assert not feeding(network, "1", BY_NAME["mlp"].example).parameters


def test_nothing_is_left_behind():
    network = BY_NAME["residual"].make().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    feeding(network, "first", BY_NAME["residual"].example)
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(one.grad is None and one.requires_grad for one in network.parameters())


def test_inside_the_context_the_others_are_frozen_and_afterwards_they_are_as_before():
    network = Shuffled()
    fed = feeding(network, "twice#2", torch.randn(2, 4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with only_feeding(fed):
        assert named(network, (one for one in network.parameters() if one.requires_grad)) == {"begin", "twice"}
        with torch.no_grad():
            for value in network.state_dict().values():
                value.add_(1)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"begin.weight", "begin.bias", "twice.weight", "twice.bias"}
    assert all(one.requires_grad for one in network.parameters())


def test_a_layer_that_is_missing_is_named_with_near_ones():
    with pytest.raises(BadValue, match="the teacher has no module 'fist' to tap. Near names: first"):
        feeding(BY_NAME["residual"].make(), "fist", BY_NAME["residual"].example, "the teacher")
