"""Rounding after training: each method against the error that it promises to make smaller, on networks worked by hand."""

import copy
import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from cortado.errors import BadTask, NothingChanged
from cortado.file.artifact import decode, encode
from cortado.methods.quantize.adaround import QuantizeAdaround
from cortado.methods.quantize.equalize import QuantizeEqualize
from cortado.methods.quantize.layerwise import Grid, output_shares
from cortado.methods.quantize.second_order import QuantizeSecondOrder, Turn, surgeon
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.statistics.synthetic import synthetic
from cortado.network.view import View
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.low_rank import LowRank
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Data, Task


def correlated(samples=400, inputs=12, seed=0):
    """Inputs that say much the same: there one weight can make up for another."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 3, generator=generator) @ torch.randn(
        3, inputs, generator=generator
    ) + 0.1 * torch.randn(samples, inputs, generator=generator)


def task_of(inputs):
    parts = (inputs[:100], inputs[100:200], inputs[200:300], inputs[300:])
    return Task(*(Data(part, torch.zeros(len(part), dtype=torch.long)) for part in parts))


def lone_layer(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 5)).eval()


@torch.no_grad()
def error_of(method):
    """The error of the outputs on fresh inputs of the same kind, means left to matching."""
    original, task = lone_layer(), task_of(correlated())
    network = copy.deepcopy(original)
    method.apply(View(network, original, task.example, reference=original), task)
    far = network(task.test.inputs) - original(task.test.inputs)
    return float((far - far.mean(0)).square().mean()), network


@pytest.mark.parametrize("kind", [QuantizeSecondOrder, QuantizeAdaround])
def test_outputs_are_nearer_than_by_rounding_to_nearest(kind):
    nearest, _ = error_of(QuantizeWeights(bits=3))
    found, network = error_of(kind(bits=3))
    assert found < 0.5 * nearest
    assert isinstance(network[0].held_weight, Quantized) and int(network[0].held_weight.codes.abs().max()) <= 3


def test_second_order_rounds_to_nearest_for_uncorrelated_inputs():
    weight = torch.randn(1, 4, 6, dtype=torch.float64)
    grid = Grid.over(weight, 4, symmetric=True)
    codes = surgeon(weight, Turn.of(torch.eye(6, dtype=torch.float64)[None] * 2.0), grid, grid.scale)
    assert torch.equal(codes, grid.round(weight))


def test_second_order_beats_every_other_rounding_of_two_inputs():
    """Two inputs that are nearly one: all roundings of one output can be tried."""
    gram = torch.tensor([[[1.0, 0.95], [0.95, 1.0]]], dtype=torch.float64)
    weight = torch.tensor([[[0.4, 0.4]]], dtype=torch.float64)
    grid = Grid(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64), -3, 3)

    def error(codes):
        off = codes - weight
        return float((off @ gram * off).sum())

    pairs = [torch.tensor([[[a, b]]], dtype=torch.float64) for a in (0.0, 1.0) for b in (0.0, 1.0)]
    assert error(surgeon(weight, Turn.of(gram), grid, grid.scale)) == min(error(codes) for codes in pairs)


@pytest.mark.parametrize("kind", [QuantizeSecondOrder, QuantizeAdaround])
def test_grouped_convolutions_are_rounded_group_by_group(kind):
    torch.manual_seed(0)
    original = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8)).eval()
    drawn = torch.randn(64, 4, 8, 8)
    task = task_of(drawn.repeat(7, 1, 1, 1)[:400])
    knobs = {"steps": 50} if kind is QuantizeAdaround else {}
    network = copy.deepcopy(original)
    kind(bits=6, rows=500, **knobs).apply(View(network, original, task.example, reference=original), task)
    far = (network(drawn) - original(drawn)).square().mean() / original(drawn).var()
    assert float(far.detach()) < 0.01


def test_shared_weights_and_those_in_low_rank_are_left_alone_and_named():
    original, task = lone_layer(), task_of(correlated())
    network = nn.Sequential(copy.deepcopy(original[0]), nn.Linear(5, 5), nn.Linear(5, 5))
    network[2].weight = network[1].weight
    view = View(network, copy.deepcopy(network), task.example)
    QuantizeSecondOrder(bits=4).apply(view, task)
    assert view.notes == [
        "1 weights are unchanged (made from other weights, shared, or not in a linear layer or convolution): 1.weight."
    ]
    attach(original[0], "weight", LowRank(Dense(torch.randn(2, 12)), Dense(torch.randn(5, 2))))
    with pytest.raises(NothingChanged, match="it needs a linear layer or convolution that runs in full rank"):
        QuantizeSecondOrder(bits=4).apply(View(original, lone_layer(), task.example), task)


@torch.no_grad()
def masked_layer(kind, symmetric):
    """A layer that is half zeros and then rounded: mask, network, and the errors beside nearest rounding's."""
    original, task = lone_layer(), task_of(correlated())
    mask = torch.rand(5, 12, generator=torch.Generator().manual_seed(3)) < 0.5
    mask[4] = False
    attach(original[0], "weight", Dense(original[0].weight.detach()).select(mask))
    network, nearest = copy.deepcopy(original), copy.deepcopy(original)
    kind(bits=3, symmetric=symmetric).apply(View(network, original, task.example, reference=original), task)
    rows = Quantized.of(original[0].weight.detach(), 3, "channel", 0, symmetric, "mse")
    attach(nearest[0], "weight", rows)

    def error(made):
        far = made(task.test.inputs) - original(task.test.inputs)
        return float((far - far.mean(0)).square().mean())

    return mask, network, error(network), error(nearest)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", [QuantizeSecondOrder, QuantizeAdaround])
def test_masked_entries_stay_zero_while_others_compensate(kind, symmetric):
    mask, network, found, nearest = masked_layer(kind, symmetric)
    form = network[0].held_weight
    assert isinstance(form, Quantized) and form.layout == "channel"
    assert torch.equal(network[0].weight[~mask], torch.zeros(int((~mask).sum())))
    # Nearly all survivors are there still.
    assert int((network[0].weight != 0).sum()) > 0.7 * int(mask.sum())
    assert found < 0.4 * nearest
    again = decode(encode(network, lone_layer()), lone_layer())
    assert torch.equal(again[0].weight, network[0].weight) and torch.equal(again[0].bias, network[0].bias)


def passed_on_to_all(weight, gram, free):
    """Codes on a grid of whole numbers by one inverse for all inputs: what a mask leaves out is set to zero in its turn."""
    turn = Turn.of(gram)
    order, upper, codes = turn.order[0], turn.upper[0], torch.zeros_like(weight)
    left = weight[0, 0, order].clone()
    for place, source in enumerate(order):
        codes[0, 0, source] = left[place].round() * free[0, 0, source]
        left[place:] -= (left[place] - codes[0, 0, source]) / upper[place, place] * upper[place, place:]
    return codes


def test_second_order_with_a_mask_finds_the_best_of_all_codes():
    """Two free inputs and a masked one: nearly always the best of all 49, and oftener than with one inverse for all."""
    one, free = torch.ones(1, 1, 1, dtype=torch.float64), torch.tensor([[[True, False, True]]])
    grid = Grid(one, 0 * one, -3, 3)
    found = {"own": 0, "joint": 0}
    for seed in range(150):
        draws = torch.Generator().manual_seed(seed)
        rows = torch.randn(50, 1, generator=draws).double() + 0.6 * torch.randn(50, 3, generator=draws).double()
        gram, weight = (rows.T @ rows / 50)[None], torch.randn(1, 1, 3, generator=draws).double() * free
        every = [torch.tensor([[[a, 0, b]]]).double() for a, b in itertools.product(range(-3, 4), repeat=2)]
        errors = [float(((codes - weight) @ gram * (codes - weight)).sum()) for codes in every]
        best = every[errors.index(min(errors))]
        (share,) = output_shares(gram, free)
        own = torch.zeros_like(weight)
        share.put(own, surgeon(share.of(weight), Turn.of(share.gram), grid, grid.scale))
        found["own"] += torch.equal(own, best)
        found["joint"] += torch.equal(passed_on_to_all(weight, gram, free), best)
    assert found["own"] > 0.9 * 150 and found["own"] > found["joint"]


class Uneven(nn.Module):
    """Two layers whose channels differ a thousandfold in reach."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm, self.last = nn.Linear(12, 6), nn.LayerNorm(6) if norm else nn.Identity(), nn.Linear(6, 4)
        with torch.no_grad():
            spread = torch.tensor([1e-2, 1e-1, 1.0, 1.0, 10.0, 30.0])
            self.last.weight.div_(spread)
            if norm:
                self.norm.weight.mul_(spread)
            else:
                self.first.weight.mul_(spread[:, None])

    def forward(self, inputs):
        return self.last(torch.relu(self.norm(self.first(inputs))))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("by", ["weights", "activations"])
def test_equalization_changes_no_output_and_makes_rounding_easier(by, norm):
    original, task = Uneven(norm).eval(), task_of(correlated())
    network = copy.deepcopy(original)
    view = View(network, original, task.example)
    QuantizeEqualize(by=by).apply(view, task)
    wanted = original(task.test.inputs).detach()
    torch.testing.assert_close(network(task.test.inputs).detach(), wanted, rtol=1e-4, atol=1e-4)

    def rounded(one):
        made = copy.deepcopy(one)
        QuantizeWeights(bits=6, per="tensor").apply(View(made, original, task.example), task)
        return float((made(task.test.inputs).detach() - wanted).square().mean())

    assert rounded(network) < 0.3 * rounded(original)
    assert view.notes[-1].startswith("1 of 1 links") or norm


def test_a_link_that_would_change_outputs_is_left_alone():
    network = nn.Sequential(nn.Linear(12, 6), nn.Sigmoid(), nn.Linear(6, 4)).eval()
    task = task_of(correlated())
    with pytest.raises(NothingChanged, match="it needs a plain float layer or norm"):
        QuantizeEqualize().apply(View(network, copy.deepcopy(network), task.example), task)


def test_imagined_samples_meet_the_moments_of_the_norms():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()).train()
    for _ in range(60):
        network(torch.randn(32, 3, 8, 8) * 3 + 1)
    network.eval()

    def far(inputs):
        seen = network[0](inputs)
        return float(((seen.mean((0, 2, 3)) - network[1].running_mean) ** 2 / network[1].running_var).mean().detach())

    made = synthetic(network, torch.zeros(1, 3, 8, 8), 32, 60, seed=0)
    noise = synthetic(network, torch.zeros(1, 3, 8, 8), 32, 0, seed=0)
    assert far(made.inputs) < 0.05 * far(noise.inputs)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


@dataclass
class Answer:
    logits: torch.Tensor
    hidden: torch.Tensor


class Own:
    def __init__(self, logits, hidden):
        self.inner = {"logits": logits, "hidden": [hidden]}


@pytest.mark.parametrize("holder", [Answer, Own, lambda logits, hidden: (logits, hidden)])
def test_a_value_that_leaves_the_network_is_not_scaled_whatever_holds_it(holder):
    class Telling(nn.Sequential):
        def forward(self, inputs):
            hidden = self[1](self[0](inputs)).relu()
            return holder(self[3](self[2](hidden).relu()), hidden)

    torch.manual_seed(1)
    network, task = Telling(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5), nn.Linear(5, 4)).eval(), task_of(correlated())
    before = copy.deepcopy(network.state_dict())
    view = View(network, copy.deepcopy(network), task.example)
    QuantizeEqualize().apply(view, task)
    assert view.notes[-1].startswith("1 of 1 links")
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"2.weight", "2.bias", "3.weight"}


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_a_norm_over_several_axes_is_left_alone(by):
    torch.manual_seed(0)
    norm, images = nn.LayerNorm([8, 3, 3]), torch.randn(16, 3, 6, 6)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), norm, nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1)
    ).eval()
    data = Data(images, torch.zeros(16, dtype=torch.long))
    wanted, task = network(images), Task(data, data, data, calibration=data, trial=True)
    view = View(network, copy.deepcopy(network), task.example)
    QuantizeEqualize(by=by).apply(view, task)
    assert view.notes[-1].startswith("1 of 1 links")
    assert torch.equal(norm.weight, torch.ones(8, 3, 3))
    torch.testing.assert_close(network(images), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_links_in_half_precision_are_balanced_without_changing_a_digit(dtype):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 4)).eval().to(dtype)
    with torch.no_grad():
        network[0].weight.mul_(torch.logspace(-1, 1, 6)[:, None])
    inputs = correlated().to(dtype)
    wanted, before, task = network(inputs), copy.deepcopy(network), task_of(inputs)
    QuantizeEqualize().apply(View(network, before, task.example), task)
    assert torch.equal(network(inputs), wanted)
    rows, columns = network[0].weight.abs().amax(1).float(), network[2].weight.abs().amax(0).float()
    assert not torch.equal(network[0].weight, before[0].weight)
    # The nearest power of two leaves at most a factor of two between the two sides.
    assert bool((rows / columns).log2().abs().max() <= 1.05)


def test_links_that_all_change_outputs_are_not_said_to_be_missing():
    class Sly(nn.Sequential):
        def forward(self, inputs):
            return super().forward(inputs) + self[0].weight.sum()

    network = Sly(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 4)).eval()
    task = task_of(correlated())
    with pytest.raises(NothingChanged, match="all 1 links between layers either changed outputs"):
        QuantizeEqualize().apply(View(network, copy.deepcopy(network), task.example), task)


def test_samples_cannot_be_imagined_for_whole_numbers():
    with pytest.raises(BadTask, match="Pass calibration data"):
        synthetic(nn.Embedding(3, 2), torch.zeros(1, 3, dtype=torch.long), 8, 1, 0)
