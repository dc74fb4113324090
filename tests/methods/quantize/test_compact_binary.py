"""quantize/compact_binary: each trick by its switch, and the penalty that pulls floats to their signs."""

import pytest
import torch

from cortado.engine.compress import compress
from cortado.errors import BadNetwork
from cortado.methods.finetune import Finetune
from cortado.methods.quantize.compact_binary import QuantizeCompactBinary
from cortado.network.view import View
from cortado.parts.activations.quantizer import sites
from cortado.parts.activations.sign import Sign
from cortado.parts.forms.binary import Binary
from cortado.parts.forms.learned_step import LearnedStep
from cortado.training.objectives.bipolar import Bipolar
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["signed"]


def applied(**knobs):
    network = NET.make()
    view = View(network, NET.make(), NET.example)
    QuantizeCompactBinary(**knobs).apply(view, NET.task())
    return network, view


def test_inner_products_read_sums_of_signs_and_have_signs():
    network, _ = applied(terms=3)
    assert [(type(s), s.terms, s.scaled) for s in sites(network).values()] == [(Sign, 3, True)] * 2
    for layer in (network.first, network.second):
        assert isinstance(layer.held_weight, Binary) and layer.held_weight.sort == "none"
        assert set(layer.weight.unique().tolist()) == {-1.0, 1.0}


def test_last_product_has_signs_with_one_learned_scale_where_asked():
    network, _ = applied()
    assert isinstance(network.head.held_weight, Binary) and network.head.held_weight.factor is not None
    assert isinstance(network.stem.held_weight, LearnedStep)
    assert isinstance(applied(last=False)[0].head.held_weight, LearnedStep)


def test_without_terms_activations_pass_as_they_are():
    assert not sites(applied(terms=0)[0])


def test_penalty_is_the_sum_over_the_floats_behind_signs():
    network, view = applied()
    extra = Bipolar().of(view, view.weights("*"), NET.task())
    floats = [network.first.held_weight.values, network.second.held_weight.values, network.head.held_weight.values]
    wanted = sum((1 - value.detach().clamp(-1, 1) ** 2).sum() for value in floats)
    torch.testing.assert_close(extra().detach(), wanted)
    one = Bipolar().of(view, view.weights("first"), NET.task())
    torch.testing.assert_close(one().detach(), (1 - floats[0].detach() ** 2).sum())
    (slope,) = torch.autograd.grad(one(), floats[0])
    torch.testing.assert_close(slope, -2 * floats[0].detach())


def test_training_with_the_penalty_drives_floats_to_their_signs():
    far = []
    for strength in (0.0, 0.05):
        network, view = applied()
        Finetune(epochs=20, lr=0.02, schedule="constant", objectives=("task", Bipolar(strength))).apply(
            view, NET.task()
        )
        far.append(float((1 - network.first.held_weight.values.detach().abs()).mean()))
    assert far[1] < 0.3 * far[0]


def test_penalty_without_signs_is_refused_in_words():
    view = View(NET.make(), NET.make(), NET.example)
    with pytest.raises(BadNetwork, match="objectives/bipolar: none of the selected weights is binarized"):
        Bipolar().of(view, view.weights("*"), NET.task())


def test_it_is_finalized_into_signs_and_a_scale():
    stages = [QuantizeCompactBinary(), Finetune(epochs=0.5, objectives=("task", Bipolar(1e-4)))]
    made, _ = compress(NET.make(), NET.task(), stages)
    assert len(made.head.weight.unique()) == 2 and len(made.first.weight.unique()) == 2
