"""Second order: less lost than by magnitude and Wanda at as many zeros, patterns exact, errors made up for, masks kept."""

import copy

import pytest
import torch
from torch import nn

from cortado.engine.stage import apply_stage, begin
from cortado.errors import BadValue, NothingChanged
from cortado.file.artifact import decode, encode
from cortado.methods.prune.second_order import PruneSecondOrder
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.rate_distortion import QuantizeRateDistortion
from cortado.parts.forms.attach import form_of
from tests.methods.seen import task_of


def applied(method, network, task):
    return apply_stage(method, begin(network, task.example), task, match_moments=False)


@torch.no_grad()
def lost(network, changed, task):
    """KL to the original's answers."""
    wanted, found = network(task.test.inputs).log_softmax(-1), changed(task.test.inputs).log_softmax(-1)
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


def masks_of(network):
    forms = [form_of(layer, "weight") for layer in network.modules() if not isinstance(layer, nn.Embedding)]
    return [form.support() for form in forms if form is not None]


@pytest.mark.parametrize(("kind", "where"), [("pictures", "*"), ("words", "layers*")])
@pytest.mark.parametrize("by", ["magnitude", "activation"])
def test_less_is_lost_than_without_making_up_for_errors(kind, where, by, request):
    network, task = request.getfixturevalue(kind)
    plain = applied(PruneWeights(keep=0.5, by=by, where=where), network, task).network
    found = applied(PruneSecondOrder(keep=0.5, images=300, where=where, across=False), network, task).network
    across = applied(PruneSecondOrder(keep=0.5, images=300, where=where), network, task).network
    assert [int(mask.sum()) for mask in masks_of(found)] == [int(mask.sum()) for mask in masks_of(plain)]
    assert lost(network, found, task) < 0.95 * lost(network, plain, task)
    assert lost(network, across, task) < 0.7 * lost(network, plain, task)


@pytest.mark.parametrize("keep", [0.1, 0.45, 0.9])
def test_each_layer_keeps_exactly_its_share(pictures, keep):
    network, task = pictures
    found = applied(PruneSecondOrder(keep=keep, across=False), network, task).network
    assert all(int(mask.sum()) == round(keep * mask.numel()) for mask in masks_of(found))


def test_across_all_layers_keep_the_share_together_and_those_that_matter_more_keep_more(pictures):
    network, task = pictures
    network = copy.deepcopy(network)
    with torch.no_grad():
        network[5].weight[0] *= 0.01
    masks = masks_of(applied(PruneSecondOrder(keep=0.4), network, task).network)
    total = sum(mask.numel() for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == round(0.4 * total)
    assert masks[2][0].float().mean() < 0.2 * masks[2][1:].float().mean()


def test_a_layer_whose_errors_cost_nothing_stays_alive(pictures):
    network, task = pictures
    network = copy.deepcopy(network)
    with torch.no_grad():
        network[5].weight.mul_(1e-6)
    masks = masks_of(applied(PruneSecondOrder(keep=0.3), network, task).network)
    assert all(bool(mask.any()) for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == round(0.3 * sum(mask.numel() for mask in masks))


@pytest.mark.parametrize("pattern", ["2:4", "1:3", "4:8"])
def test_a_pattern_holds_in_every_group_of_neighbours(pictures, pattern):
    network, task = pictures
    found = applied(PruneSecondOrder(pattern=pattern, where="not 0"), network, task).network
    count, of = map(int, pattern.split(":"))
    for mask in masks_of(found):
        flat = mask.flatten(1)
        whole = flat[:, : flat.shape[1] // of * of].unflatten(1, (-1, of)).sum(-1)
        rest = flat[:, flat.shape[1] // of * of :].sum(-1)
        assert bool((whole == count).all()) and bool((rest <= count).all())


def test_the_weight_that_stays_makes_up_for_one_like_it():
    """Of two inputs that are one, either is enough, with the sum of both weights."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 1, bias=False)).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.4, 0.6]]))
    value = torch.randn(400, 1)
    task = task_of(value.repeat(1, 2), torch.zeros(400, dtype=torch.long))
    found = applied(PruneSecondOrder(pattern="1:2", damp=1e-6), network, task).network[0].weight.detach()
    assert int((found == 0).sum()) == 1 and float(found.sum()) == pytest.approx(1.0, abs=1e-3)


def test_optimal_brain_surgeon_for_one_weight():
    """One removed weight of the first input: cost and the others' changes are those of Hassibi and Stork, 1993."""
    torch.manual_seed(1)
    mixing = torch.randn(4, 4) + torch.eye(4)
    inputs = torch.randn(4000, 4) @ mixing
    network = nn.Sequential(nn.Linear(4, 1, bias=False)).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1e-3, 1.0, -0.7, 0.5]]))
    task = task_of(inputs, torch.zeros(4000, dtype=torch.long))
    found = applied(PruneSecondOrder(keep=0.75, damp=1e-6, images=1000), network, task).network[0].weight.detach()[0]
    seen = task.calibration.inputs.double()
    inverse, weight = torch.linalg.inv(seen.T @ seen / len(seen)), network[0].weight.detach()[0].double()
    expected = weight - weight[0] / inverse[0, 0] * inverse[:, 0]
    assert torch.allclose(found.double(), expected, atol=1e-6) and float(found[0]) == 0


def test_what_was_pruned_before_stays_zero_and_counts(pictures):
    network, task = pictures
    first = applied(PruneWeights(keep=0.6, where="5"), network, task)
    gone = first.network[5].weight == 0
    found = apply_stage(PruneSecondOrder(keep=0.5, across=False), first, task, match_moments=False).network
    mask = form_of(found[5], "weight").support()
    assert not bool((mask & gone).any()) and int(mask.sum()) == round(0.5 * mask.numel())


def test_it_is_saved_opened_and_rounded(words):
    network, task = words
    state = applied(PruneSecondOrder(keep=0.5), network, task)
    assert torch.equal(decode(encode(state.network, network), network)(task.example), state.network(task.example))
    assert form_of(state.network.head, "weight") is form_of(state.network.embedding, "weight")
    zero = ~form_of(state.network.layers[0].up, "weight").support()
    found = apply_stage(QuantizeRateDistortion(bits=2.0), state, task, match_moments=False).network
    assert bool((found.layers[0].up.weight[zero] == 0).all())


def test_there_is_a_note_of_the_predicted_loss(pictures):
    network, task = pictures
    notes = applied(PruneSecondOrder(keep=0.9, images=300), network, task).notes
    predicted = next(float(one.split()[2]) for one in notes if one.startswith("predicted KL"))
    measured = lost(network, applied(PruneSecondOrder(keep=0.9, images=300), network, task).network, task)
    assert measured / 4 < predicted < 4 * measured


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"pattern": "4:2"}, "the first one smaller"),
        ({"pattern": "half"}, "Write pattern=2:4"),
    ],
)
def test_what_cannot_be_is_refused(given, sentence):
    with pytest.raises(BadValue, match=sentence):
        PruneSecondOrder(**given)


def test_nothing_to_prune_and_nothing_left_are_said(pictures):
    network, task = pictures
    with pytest.raises(NothingChanged, match="more weights alive"):
        applied(PruneSecondOrder(keep=1.0), network, task)
    with pytest.raises(BadValue, match="nothing of 0.weight would be left"):
        applied(PruneSecondOrder(keep=0.0), network, task)
