"""A trace sees every call and operator, and leaves the network as it was."""

import dataclasses
import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.network.graph.trace import trace
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense


class Branched(nn.Module):
    """A layer used twice, one under two names, a norm, dropout, and operators outside any layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.alias = self.first
        self.norm = nn.BatchNorm1d(6, momentum=0.5)
        self.inner = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, activation):
        activation = self.norm(self.first(activation)) + self.first(activation)
        return self.inner(activation).softmax(-1)


def names(call):
    return [operator.name for operator in call.operators]


def test_trace_lists_calls_in_the_order_they_began():
    traced = trace(Branched(), torch.zeros(5, 6))
    assert [call.path for call in traced.calls] == ["", "first", "norm", "first", "inner.0", "inner.1", "inner.2"]
    assert [call.index for call in traced.calls] == [0, 1, 2, 3, 5, 6, 7]
    assert traced.batch == 5
    root, first, *_, drop = traced.calls
    assert names(root) == ["aten.add.Tensor", "aten._softmax.default"]
    assert first.paths == ("first", "alias") and first.kind == "Linear"
    assert first.inputs == ((5, 6),) and first.outputs == ((5, 6),)
    assert "aten.addmm.default" in names(first)
    assert drop.operators == () and drop.outputs == ((5, 4),)


def test_trace_finds_the_calls_of_a_module_by_any_of_its_names():
    traced = trace(Branched(), torch.zeros(5, 6))
    assert [call.index for call in traced.of("alias")] == [1, 3]
    assert traced.of("alias") == traced.of("first")
    assert traced.of("nothing") == ()


def test_trace_keeps_shapes_only():
    traced = trace(Branched(), torch.zeros(5, 6))
    operators = [dataclasses.asdict(operator) for call in traced.calls for operator in call.operators]
    assert "Tensor" not in {type(value).__name__ for operator in operators for value in flat(operator)}
    matmul_layers = [operator for operator in operators if operator["name"] == "aten.addmm.default"]
    assert matmul_layers[0]["arguments"][:3] == ((6,), (5, 6), (6, 6)) and matmul_layers[0]["outputs"] == ((5, 6),)


def flat(value):
    if isinstance(value, dict):
        value = tuple(value.values())
    return [part for inner in value for part in flat(inner)] if isinstance(value, tuple) else [value]


def test_trace_leaves_the_network_as_it_was():
    network = Branched().train()
    network.inner[2].eval()
    network.calls = 0
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    places = {path: set(module.__dict__) for path, module in network.named_modules()}
    torch.manual_seed(3)
    randomness = torch.random.get_rng_state()
    trace(network, torch.rand(5, 6, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(randomness, torch.random.get_rng_state())
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert {path: set(module.__dict__) for path, module in network.named_modules()} == places
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.is_grad_enabled() and torch.backends.mha.get_fastpath_enabled()


class Restless(nn.Module):
    """Draws random numbers and counts its calls, in place or not, even in eval mode."""

    def __init__(self, in_place):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(()))
        self.in_place = in_place

    def forward(self, activation):
        if self.in_place:
            self.seen += 1
        else:
            self.seen = self.seen + 1
        return self.linear(activation + torch.rand_like(activation))


@pytest.mark.parametrize("in_place", [True, False])
def test_trace_restores_buffers_and_randomness_that_the_network_uses(in_place):
    network = Restless(in_place)
    seen = network.seen
    randomness = torch.random.get_rng_state()
    trace(network, torch.zeros(2, 3))
    assert network.seen is seen and seen == 0
    assert torch.equal(randomness, torch.random.get_rng_state())


def test_trace_cleans_up_when_the_network_fails():
    network = Branched().train()
    with pytest.raises(BadNetwork, match=r"Branched fails on inputs of shape \(5, 7\)"):
        trace(network, torch.zeros(5, 7))
    assert network.training and torch.is_grad_enabled()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_trace_takes_tuples_and_dicts():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(2, 4), nn.Linear(3, 4)

        def forward(self, one, other):
            return self.left(one) * self.right(other)

    by_position = trace(Two(), (torch.zeros(7, 2), torch.zeros(7, 3)))
    by_name = trace(Two(), {"other": torch.zeros(7, 3), "one": torch.zeros(7, 2)})
    for traced in (by_position, by_name):
        assert [call.inputs for call in traced.calls[1:]] == [((7, 2),), ((7, 3),)]
    assert by_name.batch == 7
    assert trace(Two(), (torch.zeros(7, 2), torch.zeros(7, 3)), batch=1).batch == 1


@pytest.mark.parametrize("example", [3, torch.tensor(1.0), {}, ()])
def test_trace_refuses_an_example_without_samples(example):
    with pytest.raises(BadValue, match="batch axis"):
        trace(nn.ReLU(), example)


def test_trace_runs_on_the_meta_device_with_an_example_from_the_cpu():
    example = torch.zeros(5, 6)
    with torch.device("meta"):
        network = Branched()
    original, meta = trace(Branched(), example), trace(network, example)
    assert [(call.path, call.outputs) for call in original.calls] == [(call.path, call.outputs) for call in meta.calls]
    assert not example.is_meta


def test_trace_marks_the_operators_that_decode_a_form():
    network = nn.Sequential(nn.Linear(4, 3))
    attach(network[0], "weight", Dense(torch.eye(3, 4)).select(torch.eye(3, 4) != 0))
    places = {path: set(module.__dict__) for path, module in network.named_modules()}
    (call,) = trace(network, torch.ones(2, 4)).calls
    decoding = {operator.name for operator in call.operators if operator.decoding}
    running = {operator.name for operator in call.operators if not operator.decoding}
    assert any("index_copy" in name or "scatter" in name or "where" in name for name in decoding)
    assert "aten.addmm.default" in running and "aten.addmm.default" not in decoding
    assert {path: set(module.__dict__) for path, module in network.named_modules()} == places


def test_trace_attributes_attention_to_the_attention_layer():
    """Its output projection is a module that it never calls, and its fused kernel would hide the products."""
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    activation = torch.zeros(2, 3, 8)
    (call,) = trace(layer, (activation, activation, activation)).calls
    projections = [name for name in names(call) if name in ("aten.mm.default", "aten.addmm.default")]
    assert call.path == "" and len(projections) == 2
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert "linear1" in [call.path for call in trace(encoder, activation).calls]


def test_trace_leaves_out_containers_in_which_nothing_ran():
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Identity()))
    assert [call.path for call in trace(network, torch.zeros(1, 2)).calls] == ["0.0", "0.1"]


def test_trace_follows_a_forward_with_its_own_control_flow():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Linear(2, 2)

        def forward(self, activation):
            for _ in range(random.Random(0).randrange(3, 4)):
                activation = functional.relu(self.step(activation))
            return activation

    assert len(trace(Loop(), torch.zeros(1, 2)).of("step")) == 3


def test_trace_follows_a_network_that_catches_a_failure_inside():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong, self.right = nn.Linear(9, 2), nn.Linear(2, 2)

        def forward(self, activation):
            try:
                activation = self.wrong(activation)
            except RuntimeError:
                activation = self.right(activation)
            return activation.exp()

    root, wrong, right = trace(Careful(), torch.zeros(1, 2)).calls
    assert [root.path, wrong.path, right.path] == ["", "wrong", "right"]
    assert names(root) == ["aten.exp.default"] and wrong.outputs == () and right.outputs == ((1, 2),)


def test_trace_takes_a_packed_sequence():
    packed = nn.utils.rnn.pack_padded_sequence(torch.zeros(2, 4, 5), [4, 3], batch_first=True)
    (call,) = trace(nn.GRU(5, 7), (packed,), batch=2).calls
    assert call.inputs[0] == (7, 5) and call.outputs[0] == (7, 7)
