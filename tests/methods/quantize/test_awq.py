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


class Odd(nn.Module):
    """A norm of the user's own in front of one layer, and what becomes of its output."""

    def __init__(self, norm, end=lambda found: found):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layer, self.end = norm, nn.Linear(16, 4), end

    def forward(self, inputs):
        return self.end(self.layer(self.norm(inputs)))


class Clamped(OwnNorm):
    def forward(self, inputs):
        return super().forward(inputs).clamp(-40, 40)


def own_norm_with_no_bias():
    norm = OwnNorm(16)
    norm.bias = False
    return norm


def rows_task():
    rows = torch.randn(80, 16, generator=torch.Generator().manual_seed(2))
    return Task(*(Data(part, torch.zeros(20, dtype=torch.long)) for part in rows.split(20)))


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (lambda: Odd(Clamped(16)), "it needs a plain float layer"),
        (lambda: Odd(OwnNorm(16, offset=1.0), lambda found: found[found > 1e6]), "outputs change"),
        (lambda: Odd(OwnNorm(16, offset=1.0), lambda found: found.argmax(-1)), "outputs change"),
    ],
    ids=["clamp", "no boxes", "classes"],
)
def test_what_the_outputs_cannot_show_is_left_alone(network, why):
    made = network().eval()
    with torch.no_grad():
        made.norm.weight[::4] *= 20
    task = rows_task()
    before = copy.deepcopy(made.state_dict())
    with pytest.raises(NothingChanged, match=why):
        QuantizeAwq(bits=3, per="tensor").apply(View(made, copy.deepcopy(made), task.example), task)
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


@pytest.mark.parametrize("method", [QuantizeAwq(bits=3, per="tensor"), QuantizeEqualize(by="activations")])
def test_a_bias_that_is_no_tensor_is_left_alone(method):
    made = Odd(own_norm_with_no_bias()).eval()
    with torch.no_grad():
        made.norm.weight[::4] *= 20
    original, task = copy.deepcopy(made), rows_task()
    method.apply(View(made, original, task.example), task)
    assert made.norm.bias is False and not torch.equal(made.layer.weight, original.layer.weight)


class Readers(nn.Module):
    """Two readers of one layer, the second in groups."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3)
        self.whole, self.apart = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=2)

    def forward(self, images):
        read = torch.relu(self.first(images))
        return self.whole(read) + self.apart(read)


def test_readers_in_groups_leave_a_link_alone():
    made, images = Readers().eval(), torch.randn(80, 3, 8, 8)
    task = Task(*(Data(part, torch.zeros(20, dtype=torch.long)) for part in images.split(20)))
    with pytest.raises(NothingChanged, match="none of the 1 links"):
        QuantizeAwq(bits=3, per="tensor").apply(View(made, copy.deepcopy(made), task.example), task)


class OneRead(nn.Module):
    """Attention whose queries, keys and values are one activation."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, inputs):
        read = self.norm(inputs)[:, None]
        return self.out(functional.scaled_dot_product_attention(read, read, read))


def test_attention_that_reads_one_activation_thrice_is_no_link():
    network = OneRead().eval()
    assert links_of(network, View(network, network, torch.randn(3, 5, 8)).flow) == []
