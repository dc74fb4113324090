"""reinit: the shape that is left, with new values, trained - and rewind to random of cut and factored networks."""

import copy

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.errors import BadNetwork
from cortado.methods.finetune import Finetune
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.reinit import Reinit
from cortado.methods.rewind import Rewind
from cortado.network.view import View
from cortado.network.weight import parameter_places
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.low_rank import LowRank
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from tests.laws.tiny_nets import BY_NAME


def after(name, *methods):
    tiny = BY_NAME[name]
    network, original, task = tiny.make(), tiny.make(), tiny.task()
    for method in methods:
        method.apply(View(network, original, tiny.example), task)
    return network, task


def test_cut_network_draws_what_a_network_of_its_shape_draws():
    network, task = after("mlp", PruneChannels(keep=0.5), Rewind(to="random"))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(task.seed * 1_000_003 + 41)
        wanted = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    for name, value in wanted.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_statistics_of_a_cut_network_begin_again():
    network, _ = after("residual", PruneChannels(keep=0.5), Rewind(to="random"))
    assert network.first_norm.num_features == 4
    assert torch.equal(network.first_norm.running_mean, torch.zeros(4))
    assert torch.equal(network.first_norm.running_var, torch.ones(4))
    assert torch.equal(network.first_norm.weight, torch.ones(4))


def test_first_values_of_a_cut_network_are_refused():
    wanted = r"0.weight had shape \(16, 12\) at the start and has shape \(8, 12\) now.* Put rewind before the stage that cuts"
    with pytest.raises(BadNetwork, match=wanted):
        after("mlp", PruneChannels(keep=0.5), Rewind())


def test_weight_that_was_not_there_at_the_start_is_refused():
    tiny = BY_NAME["mlp"]
    network = tiny.make()
    network[2] = nn.Sequential(nn.Linear(16, 4))
    with pytest.raises(BadNetwork, match=r"2\.0\.weight did not exist at the start and has shape \(4, 16\) now"):
        Rewind().apply(View(network, tiny.make(), tiny.example), tiny.task())


def low_rank_mlp():
    network = BY_NAME["mlp"].make()
    attach(network[0], "weight", LowRank(Dense(torch.ones(3, 12)), Dense(torch.ones(16, 3))))
    return network


def test_factors_draw_new_values_and_stay_factors():
    tiny, network = BY_NAME["mlp"], low_rank_mlp()
    again = copy.deepcopy(network)
    for one in (network, again):
        Rewind(to="random").apply(View(one, tiny.make(), tiny.example), tiny.task())
    form = form_of(network[0], "weight")
    assert isinstance(form, LowRank)
    # nn.Linear draws from +-1 / sqrt(inputs), each factor for itself.
    assert 0 < float(form.first.dense().detach().abs().max()) <= 12**-0.5
    assert 0 < float(form.last.dense().detach().abs().max()) <= 3**-0.5
    assert torch.equal(network[0].weight, again[0].weight) and torch.equal(network[0].bias, again[0].bias)
    assert float(network[0].bias.detach().abs().max()) <= 12**-0.5


def test_factors_that_are_rounded_or_pruned_draw_as_plain_ones_do():
    """What the layers that run a plain chain draw, each factor for itself; a mask stays."""
    tiny, original = BY_NAME["mlp"], low_rank_mlp()
    Rewind(to="random").apply(View(original, tiny.make(), tiny.example), tiny.task())
    wanted = form_of(original[0], "weight")
    mask = torch.rand(16, 3, generator=torch.Generator().manual_seed(1)) > 0.5
    attached = low_rank_mlp()
    first = LowRank(Quantized.of(torch.randn(2, 12), 4), Dense(torch.ones(3, 2)))
    for front in (Quantized.of(torch.randn(3, 12), 4), Dense(torch.ones(3, 12)), first):
        attach(attached[0], "weight", LowRank(front, Dense(torch.randn(16, 3)).select(mask)))
        Rewind(to="random").apply(View(attached, tiny.make(), tiny.example), tiny.task())
        form = form_of(attached[0], "weight")
        assert isinstance(form, LowRank) and isinstance(form.last, Masked)
        assert torch.equal(form.last.mask, mask)
        if front is first:
            assert [type(one) for one in (form.first.first, form.first.last)] == [Dense, Dense]
            assert 0 < float(form.first.first.dense().detach().abs().max()) <= 12**-0.5
            continue
        assert isinstance(form.first, Dense)
        assert torch.equal(form.first.dense(), wanted.first.dense())
        assert torch.equal(form.last.dense(), wanted.last.dense() * mask)


@pytest.mark.parametrize("last", ["quantize/weights", "share/kmeans bits=3"])
def test_rounded_factors_are_trained_from_scratch(last):
    tiny = BY_NAME["residual"]
    recipe = "factorize/svd where=not head{} | reinit epochs=1 lr=0.01"
    rounded, _ = compress(tiny.make(), tiny.task(), recipe.format(f" | {last}"))
    whole, _ = compress(tiny.make(), tiny.task(), recipe.format(""))
    assert isinstance(form_of(rounded.first, "weight"), LowRank)
    # The same shape from the same seed: what was rounded does not matter any more.
    for one, other in zip(parameter_places(rounded), parameter_places(whole), strict=True):
        assert one.path == other.path and torch.equal(one.dense(), other.dense()), one.path


@pytest.mark.parametrize("name", ["mlp", "residual", "transformer", "recurrent"])
def test_reinit_is_rewind_and_tune(name):
    apart, _ = after(name, PruneChannels(keep=0.5), Rewind(to="random"), Finetune(epochs=1, lr=0.01))
    together, _ = after(name, PruneChannels(keep=0.5), Reinit(epochs=1, lr=0.01))
    for one, other in zip(apart.state_dict().values(), together.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_reinit_does_not_depend_on_what_the_network_had_learned():
    tiny, found = BY_NAME["residual"], []
    for shift in (0.0, 0.5):
        network = tiny.make()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += shift
        Reinit(epochs=1, lr=0.01).apply(View(network, tiny.make(), tiny.example), tiny.task())
        found.append(network.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_masks_stay_and_survivors_learn_from_scratch():
    network, _ = after("mlp", PruneWeights(keep=0.3), Reinit(epochs=2, lr=0.01))
    pruned, _ = after("mlp", PruneWeights(keep=0.3))
    assert isinstance(form_of(network[0], "weight"), Masked)
    assert torch.equal(network[0].weight != 0, pruned[0].weight != 0)
    assert not torch.equal(network[0].weight, pruned[0].weight)


def test_one_key_of_a_recipe_trains_the_cut_shape_from_scratch():
    tiny, task = BY_NAME["mlp"], BY_NAME["mlp"].task()
    original = tiny.make()
    small, report = compress(original, task, "prune/channels keep=0.5 | reinit epochs=60 lr=0.02")
    assert small[0].out_features == 8
    with torch.no_grad():
        losses = [float(task.loss(network(task.train.inputs), task.train.targets)) for network in (small, original)]
    assert losses[0] < 0.5 * losses[1]
    assert [stage.name for stage in report.stages] == ["prune/channels", "reinit"]
