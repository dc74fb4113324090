"""The sensitivity against the mathematics, and against what changes really cost."""

import copy

import pytest
import torch
from torch import nn

from cortado.methods.match_moments import MatchMoments
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.compare.divergence import divergence_for
from cortado.network.view import View
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.quantized import Quantized
from cortado.planner.allocate.plan import plan_for
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.sensitivity.candidates import candidates_of
from cortado.planner.sensitivity.sensitivity import Sensitivity, biases_help, centred_gradient, sensitivities
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME


def view_of(net):
    made = BY_NAME[net]
    network, task = made.make(), made.task()
    view = View(network, network, made.example)
    return view, [weight for weight in view.weights() if len(weight.shape) > 1], task


@pytest.mark.parametrize("net", sorted(BY_NAME))
def test_every_network_has_prices(net):
    view, weights, task = view_of(net)
    found = sensitivities(view, weights, task, 8)
    for weight in weights:
        price = found[weight.path]
        assert price.curvature.shape == weight.shape and bool((price.curvature >= 0).all())
        assert price.predicted_kl(weight.dense(), weight.dense()) == pytest.approx(0, abs=1e-9)
        assert price.predicted_kl(weight.dense(), weight.dense() + 0.1) >= 0


def test_curvature_is_that_of_inputs_less_their_means():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    inputs = torch.randn(1500, 3) + 5
    data = Data(inputs, torch.zeros(1500, dtype=torch.int64))
    task = Task(data, data, data, trial=True)
    view = View(layer, layer, task.example)
    price = sensitivities(view, view.weights("*"), task, 1500)["weight"]
    # p (1 - p) / T is the same for both outputs of two classes: the curvature is its mean times the centred square.
    p = torch.softmax(layer(inputs) / 2, 1).detach()
    spread = (p[:, 0] * p[:, 1]).double()
    exact = (spread[:, None] * (inputs - inputs.mean(0)).double().square()).mean(0)
    # Random signs meet it in the mean only; without the centring it would be 26 times as much.
    torch.testing.assert_close(price.curvature, exact.expand(2, 3), rtol=0.2, atol=1e-6)


def test_a_channel_that_was_only_scaled_costs_nothing():
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    price = Sensitivity(
        torch.ones(4, 6, dtype=torch.float64), torch.randn(100, 6, generator=torch.Generator().manual_seed(1))
    )
    assert price.predicted_kl(weight, 0.5 * weight) == pytest.approx(0, abs=1e-9)
    assert Sensitivity(price.curvature).predicted_kl(weight, 0.5 * weight) == pytest.approx(
        float(0.125 * weight.square().sum()), rel=1e-5
    )


def test_spread_counts_as_given_back_only_where_it_will_be():
    """By a norm behind the layer whatever the form; else by scales of the rows, which shared values do not have."""
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(100, 6, generator=torch.Generator().manual_seed(1))
    scaled, shared = (
        Quantized(torch.ones(4, 6).int(), torch.ones(4), None, "channel"),
        Codebook(torch.zeros(1), torch.zeros(4, 6).int()),
    )
    for normed, form, back in ((True, shared, True), (False, shared, False), (False, scaled, True)):
        price = Sensitivity(torch.ones(4, 6, dtype=torch.float64), rows, normed=normed)
        assert (price.predicted_kl(weight, 0.5 * weight, form) < 1e-9) == back


def test_only_layers_with_a_bias_or_a_norm_are_matched():
    network = nn.Sequential(
        nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3)
    ).eval()
    data = Data(torch.randn(40, 4), torch.zeros(40, dtype=torch.int64))
    task = Task(data, data, data)
    view = View(network, network, task.example)
    found = sensitivities(view, [weight for weight in view.weights() if len(weight.shape) > 1], task, 4)
    assert [price.rows is not None for price in found.values()] == [True, False, True, True]
    assert [price.normed for price in found.values()] == [False, False, True, False]


class AtEachPlace(nn.Module):
    """A linear layer at each of T places: answers (N, T, classes)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, inputs):
        return self.layer(inputs)


def test_answers_of_a_sequence_are_classes_at_each_place():
    """The curvature of (N, T, classes) is that of the same rows as samples of their own."""
    torch.manual_seed(0)
    network, inputs = AtEachPlace(), torch.randn(300, 5, 3)
    with torch.no_grad():
        network.layer.weight.mul_(3)
    found = []
    for given, count in ((inputs, 300), (inputs.flatten(0, 1), 1500)):
        data = Data(given, torch.zeros(count, dtype=torch.int64))
        task = Task(data, data, data, calibration=data)
        view = View(network, network, task.example)
        found.append(sensitivities(view, view.weights("layer.weight"), task, count)["layer.weight"].curvature)
    torch.testing.assert_close(*found, rtol=0.25, atol=0.002)


def test_damage_of_numbers_does_not_depend_on_their_unit():
    torch.manual_seed(0)
    inputs = torch.randn(200, 3)
    data, predicted_kls = Data(inputs, torch.zeros(200)), []
    for unit in (1.0, 100.0):
        layer = nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight.copy_(unit * torch.tensor([[1.0, 2, 3], [3, 2, 1]]))
        task = Task(data, data, data, calibration=data, outputs=Numbers())
        view = View(layer, layer, task.example)
        price = sensitivities(view, view.weights("weight"), task, 200)["weight"]
        predicted_kls.append(price.predicted_kl(layer.weight.detach(), layer.weight.detach() + unit * torch.eye(2, 3)))
    assert predicted_kls[0] == pytest.approx(predicted_kls[1], rel=1e-3)


class MeanOfWords(nn.Module):
    """Embeddings, averaged over the places of a sentence: numbers (N, 4)."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(30, 4)

    def forward(self, tokens):
        return self.words(tokens).mean(1)


def test_what_all_rows_of_an_embedding_change_by_does_not_average_out():
    """A shift of all rows moves a mean over ten words as far as one word; changes that differ from row to row do not."""
    torch.manual_seed(0)
    network, tokens = MeanOfWords().eval(), torch.randint(0, 30, (400, 10))
    data = Data(tokens, torch.zeros(400))
    task = Task(data, data, data, calibration=data, outputs=Numbers())
    view = View(network, network, task.example)
    weight = network.words.weight.detach()
    divergence = divergence_for(network, task)
    price = sensitivities(view, view.weights("words.weight"), task, 400)["words.weight"]
    assert float(price.lookups.usage.sum()) == pytest.approx(1)
    noise = 0.1 * torch.randn(30, 4)
    for change in (torch.tensor([0.1, -0.2, 0.3, 0.0]).expand(30, 4), noise - noise.mean(0)):
        with torch.no_grad():
            exact = float(
                divergence.divergence(
                    network(tokens)[:, None], nn.functional.embedding(tokens, weight + change).mean(1)[:, None]
                ).mean()
            )
        assert price.predicted_kl(weight, weight + change) == pytest.approx(exact, rel=0.25)


def test_groups_are_centred_by_what_they_read():
    slopes, shift, mean = torch.zeros(4, 1, 3), torch.ones(4), torch.arange(6.0)
    assert centred_gradient(slopes, shift, mean).flatten(1).tolist() == [[-0.0, -1, -2]] * 2 + [[-3, -4, -5]] * 2


@pytest.mark.parametrize("net", ["residual", "transformer"])
def test_damages_rank_layers_as_what_they_really_cost(net):
    view, weights, task = view_of(net)
    found = sensitivities(view, weights, task, 64)
    predicted, real = [], []
    with torch.no_grad():
        wanted = view.network(task.calibration.inputs).log_softmax(1)
        for weight in weights:
            for bits in (2, 4):
                made = copy.deepcopy(view.network)
                inner = View(made, view.network, view.example, reference=view.network)
                QuantizeWeights(bits=bits, where=weight.path).apply(inner, task)
                changed = next(one for one in inner.weights() if one.path == weight.path)
                predicted.append(found[weight.path].predicted_kl(weight.dense(), changed.dense()))
                MatchMoments().apply(inner, task)
                out = made(task.calibration.inputs).log_softmax(1)
                real.append(float((wanted.exp() * (wanted - out)).sum(1).mean()))
    ranks = [torch.tensor(one).argsort().argsort().double() for one in (predicted, real)]
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.8


def test_candidates_grow_smaller_as_they_grow_harmful_and_make_a_plan():
    view, weights, task = view_of("residual")
    found = sensitivities(view, weights, task, 16)
    choices = candidates_of(view, task, found, CANDIDATE_RECIPES[:9])
    assert {one.path for one in choices} == {weight.path for weight in weights}
    for one in choices:
        assert one.candidates[0].predicted_kl == 0
        sizes = [candidate.size_bytes for candidate in one.candidates]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] <= one.original_bytes
    whole = sum(one.original_bytes for one in choices)
    small, smaller = (plan_for(choices, share * whole) for share in (0.3, 0.2))
    assert small.size_bytes <= 0.3 * whole and smaller.size_bytes <= 0.2 * whole < small.size_bytes
    assert small.predicted_kl < smaller.predicted_kl and plan_for(choices, 1) is None
    assert {stage.name() for stage in smaller.recipe().stages} == {"quantize/weights"}


@pytest.mark.parametrize("helps", [True, False])
def test_layers_that_match_will_not_correct_are_priced_as_they_are(monkeypatch, helps):
    """What follows a batch norm's layer is given back in any case, a bias's only where match moves biases."""
    monkeypatch.setattr("cortado.planner.sensitivity.sensitivity.biases_help", lambda view, task, images: helps)
    view, weights, task = view_of("depthwise")
    found = sensitivities(view, weights, task, 8)
    read = {path: price.rows is not None for path, price in found.items()}
    assert read == {"body.0.weight": helps, "body.2.weight": True, "body.5.weight": helps, "head.weight": helps}


@pytest.mark.parametrize(("divergence", "helps"), [((0.2, 0.1), True), ((0.1, 0.2), False), ((0.0, 0.0), True)])
def test_whether_biases_help_is_what_match_finds_of_a_rounded_copy(monkeypatch, divergence, helps):
    view, _, task = view_of("mlp")
    before, seen = copy.deepcopy(view.network.state_dict()), []

    def toward(self, tried, task, wanted):
        seen.append(tried)
        return divergence

    monkeypatch.setattr(MatchMoments, "toward", toward)
    assert biases_help(view, task) == helps and len(seen) == (1 if divergence[0] else 2)
    assert all(one.reference is view.network and "held_weight" in dict(one.network[0].named_children()) for one in seen)
    assert all(torch.equal(value, before[name]) for name, value in view.network.state_dict().items())


@pytest.mark.parametrize("bits", [4, 1])
def test_biases_are_tried_of_networks_that_are_rounded_already(bits):
    """Where four bits change nothing, something else is tried; not the last bits of floats."""
    view, _, task = view_of("mlp")
    QuantizeWeights(bits=bits, clip="range").apply(view, task)
    seen = []
    real = MatchMoments.toward

    def toward(self, tried, task, wanted):
        seen.append(real(self, tried, task, wanted))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MatchMoments, "toward", toward)
        assert biases_help(view, task) == (seen[-1][1] <= seen[-1][0])
    assert seen[-1][0] > 1e-6
