"""match: what is unchanged stays, and after a change each channel has the original network's mean and deviation."""

import copy

import pytest
import torch
from torch import nn

from cortado.methods.factorize.response import FactorizeResponse
from cortado.methods.match_moments import MatchMoments, run_with_hooks
from cortado.methods.prune.units import PruneUnits
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.methods.simplify.norms import SimplifyNorms
from cortado.network.statistics.norm_moments import channel_moments
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import put_quantizer
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense
from cortado.task.outputs.automatic import Automatic
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Metric, Task
from tests.laws.tiny_nets import BY_NAME, TINY_NETS

SIZE = Metric("size", "", lambda outputs, _: -outputs.square().mean(1), True, 1.0)


def matched(net, *before, **knobs):
    """The network after `before` and match, and the original."""
    tiny = BY_NAME[net]
    original, network = tiny.make(), tiny.make()
    for method in before:
        method.apply(View(network, original, tiny.example), tiny.task())
    MatchMoments(**knobs).apply(View(network, original, tiny.example), tiny.task())
    return network, original, tiny


@pytest.fixture
def all_is_matched(monkeypatch):
    """Whether or not the answers come nearer: what matching does, not when."""
    monkeypatch.setattr("cortado.methods.match_moments.between", lambda task, wanted, found: 1.0)


def answers_apart(network, original, inputs):
    """Kullback-Leibler of the answers from the plain ones at temperature 4, in nats."""
    with torch.no_grad():
        wanted, found = (
            (one.eval()(inputs).flatten(0, -2).double() / 4).log_softmax(-1) for one in (original, network)
        )
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


@pytest.mark.parametrize("net", ["mlp", "transformer", "attention", "recurrent"])
def test_what_brings_the_answers_no_nearer_is_left_out(net):
    """Of networks without norms of batches: match is kept where it helps, and only there."""
    tiny, helped = BY_NAME[net], []
    inputs = tiny.task().calibration.inputs
    for keep in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        original, network = tiny.make(), tiny.make()
        PruneWeights(keep=keep).apply(View(network, original, tiny.example), tiny.task())
        before, state = answers_apart(network, original, inputs), copy.deepcopy(network.state_dict())
        view = View(network, original, tiny.example)
        MatchMoments().apply(view, tiny.task())
        same = all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        helped.append(not same)
        assert same == any(note.startswith("match_moments: biases and row scales are unchanged") for note in view.notes)
        assert answers_apart(network, original, inputs) <= before * (1 + 1e-6)
    assert any(helped)


def test_of_numbers_the_note_says_the_share_of_their_variance():
    torch.manual_seed(0)
    original, inputs = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).eval(), torch.randn(64, 6) + 1
    data = Data(inputs, inputs[:, :3])
    task = Task(data, data, data, trial=True, outputs=Numbers(), loss=nn.functional.mse_loss, metric=SIZE)
    network = copy.deepcopy(original)
    with torch.no_grad():
        # Turned around twice: moments that are given back between would spoil it.
        for parameter in (network[0].weight, network[0].bias, network[2].weight):
            parameter.neg_()
        network[2].weight.mul_(1.05)
        wanted, found = original(inputs).double(), network(inputs).double()
    share = float(((wanted - found) ** 2).mean() / wanted.var(0, unbiased=False).mean())
    view = View(network, original, task.example)
    MatchMoments().apply(view, task)
    (note,) = view.notes
    assert "nats" not in note and f"of their variance from those before the step, instead of {share:.1%}" in note


def test_a_network_that_writes_on_what_it_reads_is_matched_as_any_other():
    class Greedy(nn.Sequential):
        def forward(self, inputs):
            return super().forward(inputs.sub_(1).div_(0.3))

    class Modest(nn.Sequential):
        def forward(self, inputs):
            return super().forward((inputs - 1) / 0.3)

    found = []
    for kind in (Greedy, Modest):
        torch.manual_seed(0)
        original = kind(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
        data = Data(torch.randn(64, 6), torch.zeros(64, dtype=torch.int64))
        task, network = Task(data, data, data, trial=True), copy.deepcopy(original)
        QuantizeWeights(bits=2, clip="range").apply(View(network, original, task.example), task)
        MatchMoments().apply(View(network, original, task.example), task)
        found.append(network)
    assert all(
        torch.equal(a, b) for a, b in zip(found[0].state_dict().values(), found[1].state_dict().values(), strict=True)
    )


def test_of_many_answers_some_are_compared():
    """A vocabulary's worth of scores for every token is not held in float64."""
    network = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 3000)).eval()
    rows = run_with_hooks(network, torch.zeros(64, 100, dtype=torch.int64), [], Automatic())
    assert rows.shape == (1, 3200, 3000) and rows.dtype == torch.float64


def outputs_at(network, path, inputs):
    """What a layer gives in eval mode, for all calibration samples."""
    found = []
    layer = network.get_submodule(path)
    hook = layer.register_forward_hook(lambda layer, arguments, output: found.append(output.detach()))
    network.eval()(inputs)
    hook.remove()
    return found[0]


@pytest.mark.parametrize("net", [net.name for net in TINY_NETS])
def test_unchanged_network_stays_as_it_is(net):
    network, original, tiny = matched(net)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, original.state_dict()[key], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(network(tiny.example), original(tiny.example), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "path", "axis"),
    [
        ("mlp", "0", -1), ("mlp", "2", -1), ("residual", "head", -1), ("depthwise", "body.0", 1),
        ("depthwise", "body.5", 1), ("depthwise", "head", -1), ("transformer", "enter", -1),
        ("transformer", "encoder.layers.0.linear1", -1), ("transformer", "head", -1), ("recurrent", "head", -1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("keep", [0.7, 0.4])
def test_moments_after_pruning_are_those_of_the_original_network(net, path, axis, keep, all_is_matched):
    network, original, tiny = matched(net, PruneWeights(keep=keep))
    inputs = tiny.task().calibration.inputs
    got, wanted = (channel_moments(outputs_at(one, path, inputs), axis) for one in (network, original))
    # A channel is never scaled by more than 4; one without survivors has no deviation to scale.
    sound = got[1] > 1e-8
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-3, atol=1e-4)
    before = PruneWeights(keep=keep)
    unmatched = tiny.make()
    before.apply(View(unmatched, original, tiny.example), tiny.task())
    ratio = (wanted[1] / got[1].clamp(min=1e-12)).sqrt()
    assert bool(((ratio - 1).abs() < 1e-2)[sound].float().mean() >= 0.8)


@pytest.mark.parametrize(("net", "path"), [("residual", "norm"), ("residual", "second_norm"), ("depthwise", "body.3")])
def test_norms_give_the_plain_moments_after_pruning(net, path):
    network, original, tiny = matched(net, PruneWeights(keep=0.6))
    inputs = tiny.task().calibration.inputs
    got, wanted = (channel_moments(outputs_at(one, path, inputs), 1) for one in (network, original))
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got[1], wanted[1], rtol=1e-2, atol=1e-4)


def test_match_moves_floats_only():
    network, _, tiny = matched("residual", PruneWeights(keep=0.5), QuantizeWeights(bits=4))
    unmatched = tiny.make()
    for method in (PruneWeights(keep=0.5), QuantizeWeights(bits=4)):
        method.apply(View(unmatched, tiny.make(), tiny.example), tiny.task())
    assert list(network.state_dict()) == list(unmatched.state_dict())
    for key, value in unmatched.state_dict().items():
        if not value.is_floating_point():
            assert torch.equal(network.state_dict()[key], value), key


def test_plain_weights_are_not_scaled(all_is_matched):
    network, original, tiny = matched("mlp", PruneWeights(keep=0.3, where="0"))
    assert torch.equal(network[2].weight, original[2].weight)
    assert not torch.equal(network[2].bias, original[2].bias)


def test_shared_weight_is_not_scaled_for_one_of_its_layers():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.leave = nn.Linear(5, 5), nn.Linear(5, 5)
            self.leave.weight = self.enter.weight

        def forward(self, quantizer):
            return self.leave(torch.relu(self.enter(quantizer)))

    torch.manual_seed(0)
    original = Tied().eval()
    inputs = torch.randn(64, 5)
    task = Task(*[Data(inputs, torch.zeros(64, dtype=torch.long))] * 3)
    network = copy.deepcopy(original)
    PruneWeights(keep=0.5).apply(View(network, original, inputs), task)
    before = network.enter.weight.detach().clone()
    MatchMoments().apply(View(network, original, inputs), task)
    assert torch.equal(network.enter.weight, before)
    for path in ("enter", "leave"):
        means = [outputs_at(one, path, inputs).mean(0) for one in (network, original)]
        torch.testing.assert_close(means[0], means[1], rtol=1e-4, atol=1e-5)


def test_unbatched_convolution_is_matched_by_channel():
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

        def forward(self, images):
            return torch.stack([self.head(self.conv(image).relu().mean((1, 2))) for image in images])

    torch.manual_seed(0)
    original = Apart().eval()
    inputs = torch.randn(1, 3, 8, 8)
    task = Task(*[Data(inputs, torch.zeros(1, dtype=torch.long))] * 3)
    network = copy.deepcopy(original)
    PruneWeights(keep=0.5).apply(View(network, original, inputs), task)
    MatchMoments().apply(View(network, original, inputs), task)
    got, wanted = (channel_moments(outputs_at(one, "conv", inputs), 0) for one in (network, original))
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got[1], wanted[1], rtol=1e-2, atol=1e-4)
    # The linear layer gives a single row, which says nothing of a mean over samples.
    assert torch.equal(network.head.bias, original.head.bias)


def test_dead_channel_gets_its_mean_and_no_wild_scale():
    tiny = BY_NAME["mlp"]
    original, network = tiny.make(), tiny.make()
    alive = torch.arange(16)[:, None].expand(16, 12) > 0
    attach(network[0], "weight", Dense(network[0].weight).select(alive))
    MatchMoments().apply(View(network, original, tiny.example), tiny.task())
    inputs = tiny.task().calibration.inputs
    got, wanted = network[0](inputs)[:, 0], original[0](inputs)[:, 0]
    torch.testing.assert_close(got, wanted.mean().expand(64), rtol=1e-4, atol=1e-5)


def answers_of(network, inputs):
    with torch.no_grad():
        return network.eval()(inputs)


@pytest.mark.parametrize("method", [FactorizeResponse(keep=0.6), PruneWeights(keep=0.4)], ids=lambda one: one.name())
def test_a_second_match_changes_nothing(method):
    tiny = BY_NAME["residual"]
    original, network = tiny.make(), tiny.make()
    method.apply(View(network, original, tiny.example), tiny.task())
    answers = []
    for _ in range(3):
        MatchMoments().apply(View(network, original, tiny.example), tiny.task())
        answers.append(answers_of(network, tiny.example))
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(answers[2], answers[0], rtol=1e-3, atol=1e-4)


def test_a_mean_that_the_method_has_kept_is_not_moved_again():
    """PCA of responses keeps each mean, in the norm where the layer has no bias."""
    tiny = BY_NAME["residual"]
    original, network = tiny.make(), tiny.make()
    inputs = tiny.task().calibration.inputs
    FactorizeResponse(rank=3, where="first.weight").apply(View(network, original, tiny.example), tiny.task())
    wanted = channel_moments(outputs_at(original, "first_norm", inputs), 1)
    torch.testing.assert_close(
        channel_moments(outputs_at(network, "first_norm", inputs), 1)[0], wanted[0], rtol=1e-3, atol=1e-3
    )
    MatchMoments().apply(View(network, original, tiny.example), tiny.task())
    got = channel_moments(outputs_at(network, "first_norm", inputs), 1)
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got[1], wanted[1], rtol=2e-2, atol=1e-3)


def test_norms_that_say_the_same_with_other_numbers_are_matched_alike():
    """Statistics moved into gain and shift: match looks at what comes out of a norm."""
    tiny = BY_NAME["residual"]
    answers = []
    for simpler in (False, True):
        original, network = tiny.make(), tiny.make()
        if simpler:
            SimplifyNorms().apply(View(network, original, tiny.example), tiny.task())
        PruneWeights(keep=0.5).apply(View(network, original, tiny.example), tiny.task())
        MatchMoments().apply(View(network, original, tiny.example), tiny.task())
        answers.append(answers_of(network, tiny.example))
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-3, atol=1e-4)


def test_units_in_another_order_get_the_moments_of_their_own():
    tiny = BY_NAME["mlp"]
    original, network = tiny.make(), tiny.make()
    view = View(network, original, tiny.example)
    PruneWeights(keep=0.8).apply(view, tiny.task())
    MatchMoments().apply(view, tiny.task())
    before = answers_of(network, tiny.example)
    order = network[0].weight.detach().clone()
    PruneUnits().apply(view, tiny.task())
    assert network[0].weight.shape == order.shape and not torch.equal(network[0].weight, order)
    MatchMoments().apply(view, tiny.task())
    torch.testing.assert_close(answers_of(network, tiny.example), before, rtol=1e-3, atol=1e-4)


def test_channel_whose_norm_holds_hardly_any_variance_keeps_its_mean():
    """The variance of a norm cannot fall below nothing, and the mean is what it gives with the variance it has."""
    original = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)).eval()
    with torch.no_grad():
        original[0].weight.fill_(1.0)
        original[1].running_var.zero_()
    network = copy.deepcopy(original)
    with torch.no_grad():
        network[0].weight.fill_(0.3)
    inputs = 0.01 + 1e-4 * torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    data = Data(inputs, torch.zeros(64, dtype=torch.long))
    MatchMoments().apply(
        View(network, original, inputs[:2], reference=original), Task(data, data, data, calibration=data)
    )
    torch.testing.assert_close(
        answers_of(network, inputs).mean(), answers_of(original, inputs).mean(), rtol=1e-3, atol=1e-4
    )


def test_rounding_that_cuts_off_negatives_moves_no_moments():
    """An unsigned grid at a layer's output does the work of the ReLU behind it: the moments before it have not changed."""
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    network = copy.deepcopy(original)
    put_quantizer(network[0], "output", Affine.spanning(0.0, 4.0, 16))
    inputs = torch.randn(256, 6)
    task = Task(*(Data(inputs, torch.zeros(256, dtype=torch.long)) for _ in range(3)))
    MatchMoments().apply(View(network, original, inputs[:1], reference=original), task)
    torch.testing.assert_close(network[0].bias, original[0].bias, rtol=0, atol=1e-4)
    torch.testing.assert_close(network(inputs), original(inputs), rtol=0, atol=1e-2)
