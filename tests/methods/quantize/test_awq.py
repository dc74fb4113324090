"""AWQ: outputs stay, rounding costs less, and gates, attention and norms of the user's own pass factors on."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.engine.recipe import read_recipe
from cortado.errors import NothingChanged
from cortado.methods.quantize.awq import QuantizeAwq, factors_of
from cortado.methods.quantize.equalize import QuantizeEqualize
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.quantizers.scaling import links_of
from cortado.network.view import View
from cortado.task.task import Data, Task


class OwnNorm(nn.Module):
    """A root-mean-square norm as users write it."""

    def __init__(self, width, offset=0.0):
        super().__init__()
        self.weight, self.offset = nn.Parameter(1 + torch.rand(width)), offset

    def forward(self, inputs):
        scale = torch.rsqrt(inputs.square().mean(-1, keepdim=True) + 1e-6)
        return (self.weight + self.offset) * (inputs * scale)


class Block(nn.Module):
    """An encoder's block: attention and a gated feed-forward, each behind a norm; as in speech, a convolution comes first."""

    def __init__(self, norm=OwnNorm, fused=True):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv1d(6, 16, 3, padding=1)
        self.before, self.between = norm(16), nn.LayerNorm(16)
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)
        self.head, self.fused = nn.Linear(16, 4), fused
        with torch.no_grad():
            # A few loud channels, as in trained language models.
            for one in (self.before, self.between):
                one.weight[::5] *= 20
            self.up.weight[::7] *= 20

    def mixed(self, read):
        query, key, value = (
            layer(read).unflatten(-1, (2, 8)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        if self.fused:
            found = functional.scaled_dot_product_attention(query, key, value)
        else:
            found = torch.softmax(query @ key.mT / 8**0.5, -1) @ value
        return self.out(found.transpose(1, 2).flatten(2))

    def forward(self, sound):
        values = functional.gelu(self.stem(sound)).mT
        values = values + self.mixed(self.before(values))
        read = self.between(values)
        values = values + self.down(functional.silu(self.gate(read)) * self.up(read))
        return self.head(values.mean(1))


def task():
    sound = torch.randn(120, 6, 10, generator=torch.Generator().manual_seed(1))
    parts = (sound[:30], sound[30:60], sound[60:90], sound[90:])
    return Task(*(Data(part, torch.zeros(len(part), dtype=torch.long)) for part in parts))


def view_of_block(**options):
    original = Block(**options).eval()
    return View(copy.deepcopy(original), original, task().example)


def rounded_error(network, original, bits=4, group=8):
    made = copy.deepcopy(network)
    QuantizeWeights(bits=bits, per="group", group=group).apply(View(made, original, task().example), task())
    inputs = task().test.inputs
    return float((made(inputs) - original(inputs)).square().mean().detach())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("norm", [OwnNorm, nn.RMSNorm, nn.LayerNorm])
def test_factors_pass_norms_attention_and_gates(norm, fused):
    view = view_of_block(norm=norm, fused=fused)
    found = {link.maker: link.readers for link in links_of(view.network, view.flow)}
    assert found == {
        "before": ("query", "key", "value"),
        "value": ("out",),
        "between": ("gate", "up"),
        "up": ("down",),
    }


@pytest.mark.parametrize("method", [QuantizeAwq(bits=3, group=8), QuantizeEqualize(by="activations")])
def test_outputs_stay(method):
    view = view_of_block()
    inputs = task().test.inputs
    method.apply(view, task())
    assert not torch.equal(view.network.before.weight, view.original.before.weight)
    torch.testing.assert_close(view.network(inputs), view.original(inputs), rtol=1e-4, atol=1e-4)


def test_rounding_costs_less_afterwards():
    """On average: one small network is as much luck as method."""
    gains = []
    for seed in range(6):
        view = view_of_block()
        torch.manual_seed(seed)
        for weight in (one for one in view.original.parameters() if one.dim() > 1):
            nn.init.xavier_normal_(weight)
        view.network.load_state_dict(view.original.state_dict())
        plain = rounded_error(view.network, view.original)
        QuantizeAwq(bits=4, group=8).apply(view, task())
        assert view.notes[-1].startswith(("3 of 4 links", "4 of 4 links"))
        gains.append(rounded_error(view.network, view.original) / plain)
    assert torch.tensor(gains).log().mean().exp() < 0.8, gains


def test_the_predicted_error_is_that_of_the_outputs():
    """One linear layer behind a norm: the error by second moments is the mean squared error of its outputs."""
    torch.manual_seed(3)
    original = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 5)).eval()
    inputs = torch.randn(40, 6)
    given = Task(*(Data(inputs, torch.zeros(40, dtype=torch.long)) for _ in range(3)), unlabelled=inputs)
    read = original[0](inputs).detach()
    gram = (read.mT @ read / 40)[None]
    factors = factors_of(gram[0].diagonal().sqrt(), 0.5)
    method = QuantizeAwq(bits=3, per="channel")
    network = copy.deepcopy(original)
    with torch.no_grad():
        network[0].weight.div_(factors)
        network[0].bias.div_(factors)
        network[1].weight.mul_(factors)
    QuantizeWeights(bits=3, clip="range").apply(View(network, original, given.example), given)
    wanted = float((network(inputs) - original(inputs)).square().mean(0).sum().detach())
    assert method.error_of(original[1], gram, factors) == pytest.approx(wanted, rel=1e-4)


class Gate(nn.Module):
    """A value times itself: a factor would come out squared."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, inputs):
        read = self.first(inputs)
        return self.last(read * read.relu())


def test_a_product_of_two_scaled_values_is_no_link():
    network = Gate().eval()
    assert links_of(network, View(network, network, torch.randn(3, 6)).flow) == []


def test_a_norm_with_an_offset_is_left_alone():
    """Where outputs would change, the link stays as it is; the others are scaled."""
    view = view_of_block(norm=lambda width: OwnNorm(width, offset=1.0))
    QuantizeAwq(bits=3, group=8).apply(view, task())
    assert torch.equal(view.network.before.weight, view.original.before.weight)
    assert not torch.equal(view.network.between.weight, view.original.between.weight)


def test_depthwise_and_flattened_readers_are_scaled():
    torch.manual_seed(0)
    original = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5)
    ).eval()
    with torch.no_grad():
        original[0].weight[0] *= 30
        original[2].weight[2] *= 30
    images = torch.randn(80, 3, 6, 6)
    given = Task(*(Data(part, torch.zeros(20, dtype=torch.long)) for part in images.split(20)))
    view = View(copy.deepcopy(original), original, given.example)
    QuantizeAwq(bits=3, per="channel").apply(view, given)
    # A depthwise layer with a scale for each channel rounds as before, whatever the factors.
    assert view.notes[-1].startswith("1 of 2 links")
    torch.testing.assert_close(view.network(images), original(images), rtol=1e-4, atol=1e-4)


def test_nothing_to_scale_is_an_error():
    network = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 4)).eval()
    given = Task(*(Data(torch.randn(20, 6), torch.zeros(20, dtype=torch.long)) for _ in range(4)))
    with pytest.raises(NothingChanged, match="it needs a plain float layer or norm"):
        QuantizeAwq().apply(View(network, copy.deepcopy(network), given.example), given)


def test_as_a_recipe():
    (first, second) = read_recipe("quantize/awq bits=4 group=32 | quantize/weights bits=4 per=group group=32").stages
    assert first == QuantizeAwq(bits=4, group=32) and second.group == 32
