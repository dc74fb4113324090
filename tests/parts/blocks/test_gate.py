"""Gates: eval decides by the sign of a logit, training draws, gradients are those of values + gate * (inside - values)."""

import math

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork, BadValue
from cortado.file.artifact import decode, encode
from cortado.network.view import View
from cortado.parts.blocks.block import take_off
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.blocks.gate import Gate

SHAPES = {"pictures": ((9, 5, 4, 3), False), "tokens": ((9, 4, 5), True), "rows": ((9, 5), True)}


class Scaled(nn.Module):
    """Multiplies each channel of values by a number, and adds another argument."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, shape[1]).reshape(-1, *[1] * (len(shape) - 2)))

    def forward(self, values, more=0.0):
        return values * self.scale + more


@pytest.fixture(params=list(SHAPES))
def gated(request):
    """A gate around such a module, open for some of the samples, and the samples."""
    shape, last = SHAPES[request.param]
    torch.manual_seed(0)
    gate, values = Gate(Scaled(shape), 5, 7, last), torch.randn(shape)
    gate.gate_opens.prepare(values, 0.5)
    return gate, values


def logits_by_hand(gate, values):
    """Return the logit of each sample, computed with sums alone."""
    rows = values if values.dim() == 2 else values.sum(1) / 4 if values.dim() == 3 else values.sum((2, 3)) / 12
    read, decide = gate.gate_opens.read, gate.gate_opens.decide
    return (rows @ read.weight.T + read.bias).clamp(min=0) @ decide.weight[0] + decide.bias[0]


def test_in_eval_a_sample_runs_where_the_logit_is_positive(gated):
    gate, values = gated
    found = gate.eval()(values)
    opened = logits_by_hand(gate, values) > 0
    assert 0 < opened.sum() < len(values)
    for sample, one in enumerate(opened):
        assert torch.equal(found[sample], gate.inner(values)[sample] if one else values[sample])
    assert torch.equal(gate.gate_rows.ran.rows, opened)


def test_in_training_each_sample_is_exactly_one_of_both(gated):
    gate, values = gated
    gate.train().gate_opens.noise = 1.0
    found, inside = gate(values), gate.inner(values)
    for sample, one in enumerate(gate.gate_rows.ran.rows):
        assert torch.equal(found[sample], inside[sample] if one else values[sample])


def test_answers_are_drawn_with_the_probability_of_the_logit(gated):
    gate, values = gated
    gate.train().gate_opens.noise = 1.0
    torch.manual_seed(3)
    drawn = torch.stack([gate.gate_opens(values) for _ in range(2000)])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    wanted = torch.sigmoid(logits_by_hand(gate, values))
    assert (drawn.mean(0) - wanted).abs().max() < 5 * math.sqrt(0.25 / 2000)


def test_without_noise_training_answers_as_eval(gated):
    gate, values = gated
    assert torch.equal(gate.train()(values), gate.eval()(values))


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_gradient_reaches_the_gate(gated, temperature):
    """Against the soft gate's gradient where values are linear in the gate, and the hard mask elsewhere."""
    gate, values = gated
    gate.train().gate_opens.temperature = temperature
    values.requires_grad_(True)
    slopes = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    (gate(values) * slopes).sum().backward()
    found = {name: one.grad.clone() for name, one in gate.named_parameters()}
    logits = logits_by_hand(gate, values)
    inside = gate.inner(values)
    shape = (-1, *[1] * (values.dim() - 1))
    soft, hard = torch.sigmoid(logits / temperature), (logits > 0).float().reshape(shape)
    both = hard * inside + (1 - hard) * values + soft.reshape(shape) * (inside - values).detach()
    wanted = torch.autograd.grad((both * slopes).sum(), [values, *gate.parameters()])
    assert torch.allclose(values.grad, wanted[0], atol=1e-5)
    for (name, _), one in zip(gate.named_parameters(), wanted[1:], strict=True):
        assert torch.allclose(found[name], one, atol=1e-4), name
    assert all(float(one.abs().sum()) > 0 for one in found.values())


def test_hidden_units_differ_between_samples_once_prepared(gated):
    gate, values = gated
    values = values * 0.01 + 3
    gate.gate_opens.prepare(values, 0.8)
    hidden = gate.gate_opens.read(gate.gate_opens.means(values))
    assert torch.allclose(hidden.mean(0), torch.zeros(7), atol=1e-3)
    assert torch.allclose(hidden.var(0, correction=0), torch.ones(7), atol=1e-2)
    assert math.isclose(gate.gate_opens.decide.bias.item(), math.log(4), rel_tol=1e-5)


def test_samples_that_are_all_alike_leave_finite_weights():
    gate = Gate(nn.Linear(3, 3), 3, 4, True)
    gate.gate_opens.prepare(torch.ones(8, 3), 0.5)
    assert all(bool(torch.isfinite(one).all()) for one in gate.parameters())


def test_further_arguments_go_inside(gated):
    gate, values = gated
    opened = gate.eval().gate_opens(values)
    assert torch.equal(gate(values, more=2.0)[opened], gate.inner(values, 2.0)[opened])
    assert torch.equal(gate(values, 2.0)[~opened], values[~opened])


@pytest.mark.parametrize("sizes", [{"channels": 0}, {"hidden": 0}, {"channels_last": 2}])
def test_sizes_that_cannot_be_are_refused_in_words(sizes):
    with pytest.raises(BadValue, match="blocks/gate: channels and hidden must be 1 or more .* got "):
        Gate(nn.Linear(2, 2), **({"channels": 2} | sizes))


def original_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)).eval()


def test_the_file_gives_a_gate_back():
    network, example = original_net(), torch.randn(6, 4)
    view = View(network, original_net(), example)
    view.wrap("1", Gate(network[1], 4, 3, True))
    again = decode(encode(view.network, original_net()), original_net())
    assert isinstance(again[1], Gate) and again[1].hidden == 3 and again[1].channels_last
    assert torch.equal(again(example), view.network(example))


def test_a_gate_comes_off_again():
    network, example = original_net(), torch.randn(6, 4)
    before = network(example)
    view = View(network, original_net(), example)
    view.wrap("1", Gate(network[1], 4, 3, True))
    view.unwrap("1")
    assert torch.equal(view.network(example), before) and list(network.state_dict()) == list(
        original_net().state_dict()
    )


@pytest.mark.parametrize("path", ["0", "nowhere", ""])
def test_only_blocks_come_off(path):
    network = original_net()
    with pytest.raises(BadNetwork, match=f"view: there is no block at '{path}' to take off"):
        View(network, original_net(), torch.randn(2, 4)).unwrap(path)


def test_a_block_that_keeps_nothing_does_not_come_off():
    network = original_net()
    network[1] = Bypass()
    with pytest.raises(BadNetwork, match="Bypass keeps no module"):
        take_off(network, network[1])


def test_a_block_around_the_whole_network_comes_off():
    network = original_net()
    gate = Gate(network, 4, 3, True)
    assert take_off(gate, gate) is network
