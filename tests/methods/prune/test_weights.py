"""prune/weights: the largest stay, exactly as many as asked for."""

import pytest
import torch
from torch import nn

from cortado.errors import BadRecipe, BadValue
from cortado.layers.factors import factored_network
from cortado.methods.factorize.cp import FactorizeCp
from cortado.methods.factorize.svd import FactorizeSvd
from cortado.methods.prune.ranking import highest
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.methods.share.kmeans import ShareKmeans
from cortado.network.view import View
from cortado.parts.forms.attach import form_of
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME


def pruned(*methods, net="mlp"):
    tiny = BY_NAME[net]
    network = tiny.make()
    for method in methods:
        method.apply(View(network, tiny.make(), tiny.example), tiny.task())
    return network, tiny.make()


@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5, 0.9, 1.0])
def test_the_largest_stay_and_no_more(keep):
    network, original = pruned(PruneWeights(keep=keep))
    for one, before in ((network[0].weight, original[0].weight), (network[2].weight, original[2].weight)):
        kept = one != 0
        assert int(kept.sum()) == round(keep * one.numel())
        assert torch.equal(one[kept], before[kept])
        if not kept.all():
            assert before[kept].abs().min() >= before[~kept].abs().max()


def test_one_threshold_serves_all_layers_across():
    network, original = pruned(PruneWeights(keep=0.3, across=True))
    flat = torch.cat([original[0].weight.flatten(), original[2].weight.flatten()]).abs()
    limit = flat.sort(descending=True).values[round(0.3 * flat.numel()) - 1]
    for index in (0, 2):
        assert torch.equal(network[index].weight != 0, original[index].weight.abs() >= limit)


def test_threshold_is_a_multiple_of_the_deviation():
    network, original = pruned(PruneWeights(threshold=0.8))
    for index in (0, 2):
        assert torch.equal(
            network[index].weight != 0, original[index].weight.abs() >= 0.8 * original[index].weight.std()
        )


def test_share_of_survivors_or_of_all():
    entries = 12 * 16
    twice, _ = pruned(PruneWeights(keep=0.5), PruneWeights(keep=0.5, of="survivors"))
    assert int((twice[0].weight != 0).sum()) == entries // 4
    again, _ = pruned(PruneWeights(keep=0.5), PruneWeights(keep=0.25))
    assert torch.equal(again[0].weight, twice[0].weight)


def test_what_was_dropped_stays_dropped():
    network, _ = pruned(PruneWeights(keep=0.5), PruneWeights(keep=0.9, by="random"))
    first, _ = pruned(PruneWeights(keep=0.5))
    assert torch.equal(network[0].weight, first[0].weight)


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        (ShareKmeans(bits=3), Codebook),
        (QuantizeWeights(bits=4), Quantized),
        (QuantizeWeights(bits=4, symmetric=False), Quantized),
    ],
)
def test_survivors_stay_in_the_form_they_are_in(before, kind):
    network, _ = pruned(before, PruneWeights(keep=0.5))
    coded, _ = pruned(before)
    form = form_of(network[0], "weight")
    assert isinstance(form.kept if isinstance(form, Masked) else form, kind)
    assert int((network[0].weight != 0).sum()) <= 96
    kept = network[0].weight != 0
    assert torch.equal(network[0].weight[kept], coded[0].weight[kept])


def test_highest_takes_the_first_among_equals():
    assert highest(torch.tensor([1.0, 2.0, 1.0, 2.0]), 3).tolist() == [True, True, False, True]


def test_nothing_left_is_an_error_with_a_way_out():
    with pytest.raises(BadValue, match="nothing of 0.weight would be left. Raise keep, or exclude it with where"):
        pruned(PruneWeights(keep=0.0))


def test_unknown_score_is_an_error_with_near_names():
    with pytest.raises(BadRecipe, match="there is no importance 'magnitud'. Did you mean: magnitude"):
        pruned(PruneWeights(by="magnitud"))


@pytest.mark.parametrize("by", ["magnitude", "magnitude_l2", "activation", "taylor", "curvature", "random"])
@pytest.mark.parametrize("net", ["mlp", "residual", "depthwise"])
def test_every_score_ranks_the_weights_of_networks(by, net):
    network, _ = pruned(PruneWeights(keep=0.5, by=by), net=net)
    weights = [layer.weight for layer in network.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    assert all(int((one != 0).sum()) == round(0.5 * one.numel()) for one in weights)


def factors(layer):
    form = form_of(layer, "weight")
    return form.first, form.last


@pytest.mark.parametrize("by", ["magnitude", "magnitude_l2", "activation", "taylor", "curvature", "random"])
def test_a_weight_in_low_rank_is_pruned_in_its_factors(by):
    network, _ = pruned(FactorizeSvd(keep=0.5), net="mlp")
    before = [factor.dense().detach().clone() for factor in factors(network[0])]
    tiny = BY_NAME["mlp"]
    PruneWeights(keep=0.5, by=by, where="0.weight").apply(View(network, tiny.make(), tiny.example), tiny.task())
    for factor, was in zip(factors(network[0]), before, strict=True):
        assert isinstance(factor, Masked)
        assert int(factor.mask.sum()) == round(0.5 * was.numel())
        torch.testing.assert_close(factor.dense().detach(), was * factor.mask)
    assert network(tiny.example).shape == tiny.make()(tiny.example).shape


def test_nested_factors_are_pruned_and_stay_pruned():
    tiny = BY_NAME["residual"]
    network = tiny.make()
    FactorizeCp(rank=4, where="first.weight").apply(View(network, tiny.make(), tiny.example), tiny.task())
    for keep in (0.6, 0.3):
        view = View(network, tiny.make(), tiny.example)
        PruneWeights(keep=keep, across=True, where="first.weight").apply(view, tiny.task())
    pieces = View(network, tiny.make(), tiny.example).pieces("first.weight")
    assert len(pieces) > 2 and all(isinstance(piece.form, Masked) for piece in pieces)
    masks = [piece.form.mask for piece in pieces]
    assert sum(int(mask.sum()) for mask in masks) == round(0.3 * sum(mask.numel() for mask in masks))
    torch.testing.assert_close(factored_network(network)(tiny.example), network(tiny.example), rtol=1e-4, atol=1e-5)


def test_threshold_of_a_single_weight_is_its_size():
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    data = Data(torch.randn(8, 4), torch.zeros(8, 1))
    view = View(network, network, data.inputs[:2])
    PruneWeights(threshold=0.5, where="1.bias").apply(view, Task(data, data, data, calibration=data))
    assert bool(form_of(network[1], "bias").mask.all())


def test_bias_beside_factors_is_pruned_with_them():
    tiny = BY_NAME["mlp"]
    network, _ = pruned(FactorizeSvd(keep=0.5), net="mlp")
    PruneWeights(keep=0.5, by="taylor", where="0, *.bias").apply(View(network, tiny.make(), tiny.example), tiny.task())
    assert isinstance(form_of(network[0], "bias"), Masked) and isinstance(factors(network[0])[0], Masked)
    with pytest.raises(BadValue, match=r"a factor of 0\.weight"):
        PruneWeights(keep=0.0, where="0").apply(View(network, tiny.make(), tiny.example), tiny.task())
