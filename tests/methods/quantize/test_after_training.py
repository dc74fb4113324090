"""Rounding after training: each method against the error that it promises to make smaller, on networks worked by hand."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadTask, BadValue, NothingChanged
from cortado.forms.hold import hold
from cortado.forms.masked import Masked
from cortado.forms.quantized import Quantized
from cortado.methods.quantize.adaround import QuantizeAdaround
from cortado.methods.quantize.equalize import QuantizeEqualize
from cortado.methods.quantize.ladder import STEPS, Climb, QuantizeLadder
from cortado.methods.quantize.layerwise import Grid
from cortado.methods.quantize.second_order import QuantizeSecondOrder, surgeon
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.imagined import imagined
from cortado.network.view import View
from cortado.signals.signal import sites
from cortado.task import Data, Task
from tests.laws.tiny_nets import BY_NAME


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
    plain, task = lone_layer(), task_of(correlated())
    network = copy.deepcopy(plain)
    method.apply(View(network, plain, task.example, reference=plain), task)
    far = network(task.verdict.inputs) - plain(task.verdict.inputs)
    return float((far - far.mean(0)).square().mean()), network


@pytest.mark.parametrize("kind", [QuantizeSecondOrder, QuantizeAdaround])
def test_outputs_are_nearer_than_by_rounding_to_nearest(kind):
    nearest, _ = error_of(QuantizeWeights(bits=3))
    found, network = error_of(kind(bits=3))
    assert found < 0.5 * nearest
    assert isinstance(network[0].held_weight, Quantized) and int(network[0].held_weight.codes.abs().max()) <= 3


def test_second_order_is_rounding_to_nearest_where_inputs_have_nothing_in_common():
    weight = torch.randn(1, 4, 6, dtype=torch.float64)
    grid = Grid.over(weight, 4, symmetric=True)
    codes = surgeon(weight, torch.eye(6, dtype=torch.float64)[None] * 2.0, grid, grid.scale)
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
    assert error(surgeon(weight, gram, grid, grid.scale)) == min(error(codes) for codes in pairs)


@pytest.mark.parametrize("kind", [QuantizeSecondOrder, QuantizeAdaround])
def test_grouped_convolutions_are_rounded_group_by_group(kind):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8)).eval()
    drawn = torch.randn(64, 4, 8, 8)
    task = task_of(drawn.repeat(7, 1, 1, 1)[:400])
    knobs = {"steps": 50} if kind is QuantizeAdaround else {}
    network = copy.deepcopy(plain)
    kind(bits=6, rows=500, **knobs).apply(View(network, plain, task.example, reference=plain), task)
    far = (network(drawn) - plain(drawn)).square().mean() / plain(drawn).var()
    assert float(far.detach()) < 0.01


def test_masked_and_shared_weights_are_left_alone_and_named():
    plain, task = lone_layer(), task_of(correlated())
    network = nn.Sequential(copy.deepcopy(plain[0]), nn.Linear(5, 5), nn.Linear(5, 5))
    network[2].weight = network[1].weight
    view = View(network, copy.deepcopy(network), task.example)
    QuantizeSecondOrder(bits=4).apply(view, task)
    assert view.notes == ["1 weights were left as they are, masked, in low rank or shared: 1.weight."]
    hold(plain[0], "weight", Masked.of(plain[0].weight.detach(), plain[0].weight.detach() > 0))
    with pytest.raises(NothingChanged, match="without a mask and not in low rank"):
        QuantizeSecondOrder(bits=4).apply(View(plain, lone_layer(), task.example), task)


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
@pytest.mark.parametrize("by", ["weights", "signals"])
def test_equalization_changes_no_output_and_makes_rounding_easier(by, norm):
    plain, task = Uneven(norm).eval(), task_of(correlated())
    network = copy.deepcopy(plain)
    view = View(network, plain, task.example)
    QuantizeEqualize(by=by).apply(view, task)
    wanted = plain(task.verdict.inputs)
    torch.testing.assert_close(network(task.verdict.inputs), wanted, rtol=1e-4, atol=1e-4)

    def rounded(one):
        made = copy.deepcopy(one)
        QuantizeWeights(bits=6, per="tensor").apply(View(made, plain, task.example), task)
        return float((made(task.verdict.inputs) - wanted).square().mean())

    assert rounded(network) < 0.3 * rounded(plain)
    assert view.notes[-1].startswith("1 of 1 links") or norm


def test_a_link_that_would_change_outputs_is_left_alone():
    network = nn.Sequential(nn.Linear(12, 6), nn.Sigmoid(), nn.Linear(6, 4)).eval()
    task = task_of(correlated())
    with pytest.raises(NothingChanged, match="no two layers with only ReLUs"):
        QuantizeEqualize().apply(View(network, copy.deepcopy(network), task.example), task)


def test_imagined_samples_meet_the_moments_of_the_norms():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()).train()
    for _ in range(60):
        network(torch.randn(32, 3, 8, 8) * 3 + 1)
    network.eval()

    def far(inputs):
        seen = network[0](inputs)
        return float(((seen.mean((0, 2, 3)) - network[1].running_mean) ** 2 / network[1].running_var).mean())

    made = imagined(network, torch.zeros(1, 3, 8, 8), 32, 60, seed=0)
    noise = imagined(network, torch.zeros(1, 3, 8, 8), 32, 0, seed=0)
    assert far(made.inputs) < 0.05 * far(noise.inputs)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_samples_cannot_be_imagined_for_whole_numbers():
    with pytest.raises(BadTask, match="Give calibration data"):
        imagined(nn.Embedding(3, 2), torch.zeros(1, 3, dtype=torch.long), 8, 1, 0)


def climbed(net="residual", **knobs):
    made = BY_NAME[net]
    network, plain, task = made.make(), made.make(), made.task()
    view = View(network, plain, made.example, reference=plain)
    QuantizeLadder(**({"images": 32} | knobs)).apply(view, task)
    return network, plain, view, task


def test_ladder_tells_of_every_step_and_ends_nearer_than_it_began():
    network, plain, view, task = climbed(bits=3, signals=4)
    said = view.notes[-1]
    assert said.startswith("nearest rounding: ") and all(
        f"; {step}: " in said for step in ("match", "range", "second_order")
    )
    first = float(said.split()[2])
    kept = [float(part.split("-> ")[1].split(",")[0]) for part in said.split("; ") if "kept" in part]
    assert kept and kept == sorted(kept, reverse=True) and kept[-1] < 0.7 * first
    assert sites(network) and any(isinstance(module, Quantized) for module in network.modules())


@pytest.mark.parametrize("net", ["mlp", "attention", "transformer", "recurrent"])
def test_fragile_layers_are_found_in_every_kind_of_network(net):
    _, _, view, _ = climbed(net, bits=2, signals=0, steps="fragile", fragile=0.3)
    assert "; fragile: " in view.notes[-1]


def test_ladder_judges_pictures_pixel_by_pixel_over_their_classes():
    """The second axis of (N, classes, H, W) holds the classes, not the last."""
    torch.manual_seed(0)
    network, inputs = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)).eval(), torch.randn(8, 2, 4, 6)
    task = Task(*(Data(inputs, torch.zeros(8, 4, 6, dtype=torch.long)) for _ in range(3)))
    view = View(copy.deepcopy(network), network, task.example)
    climb = Climb(QuantizeLadder(images=8), view, task, inputs)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[0].bias += torch.tensor([0.5, 0.0, -0.3])
        plain, changed = (one(inputs).permute(0, 2, 3, 1).reshape(-1, 3).log_softmax(1) for one in (network, other))
    assert climb.far(other) == pytest.approx(float((plain.exp() * (plain - changed)).sum(1).mean()), rel=1e-4)


def test_ladder_without_signals_and_without_data():
    network, _, view, _ = climbed(bits=4, signals=0, data="imagined", steps="match, second_order")
    assert not sites(network) and "range" not in view.notes[-1]


def test_step_that_is_not_known_is_refused():
    with pytest.raises(BadValue, match="no step is called 'magic'. Known: match, range"):
        QuantizeLadder(steps="match, magic")
    assert QuantizeLadder().chosen == list(STEPS)
