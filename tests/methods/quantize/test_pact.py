"""quantize/pact: learned ends where activations are never negative, squashed weights between the edges."""

import torch

from cortado.engine.compress import compress
from cortado.methods.finetune import Finetune
from cortado.methods.quantize.pact import QuantizePact
from cortado.network.statistics.ranges import RANGES
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.pact import Pact
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.squashed import Squashed
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


def applied(method=None, net=NET):
    network = net.make()
    (method or QuantizePact()).apply(View(network, net.make(), net.example), net.task())
    return network


def test_activations_above_zero_have_learned_ends_and_others_grids():
    network = applied(QuantizePact(activations=3))
    found = sites(network)
    assert isinstance(found["stem", "input"], Affine) and found["stem", "input"].bits() == 8
    ends = [quantizer for quantizer in found.values() if isinstance(quantizer, Pact)]
    assert sorted(quantizer.bits() for quantizer in ends) == [3, 3, 8]


def test_ends_begin_within_what_was_seen():
    whole = {
        k: float(s.end.detach()) for k, s in sites(applied(QuantizePact(range="full"))).items() if isinstance(s, Pact)
    }
    less = {
        k: float(s.end.detach()) for k, s in sites(applied(QuantizePact(range="mse"))).items() if isinstance(s, Pact)
    }
    assert set(whole) == set(less) and "mse" in RANGES
    # Steps are kept to three digits.
    assert all(0 < less[key] <= whole[key] * 1.01 for key in whole) and any(less[key] < whole[key] for key in whole)


def test_weights_are_squashed_between_the_edges():
    network = applied(QuantizePact(bits=3))
    assert isinstance(network.first.held_weight, Squashed) and network.first.held_weight.width == 3
    for layer in (network.stem, network.head):
        assert isinstance(layer.held_weight, LearnedStep) and layer.held_weight.width == 8


def test_ends_and_weights_learn_and_settle_into_whole_numbers():
    start = {key: float(s.end.detach()) for key, s in sites(applied()).items() if isinstance(s, Pact)}
    network = applied()
    Finetune(epochs=2, lr=0.02, decay=1e-2).apply(View(network, NET.make(), NET.example), NET.task())
    moved = {key: float(s.end.detach()) for key, s in sites(network).items() if isinstance(s, Pact)}
    assert all(moved[key] != start[key] for key in start)
    made, report = compress(NET.make(), NET.task(), [QuantizePact(bits=2, activations=2), Finetune(epochs=0.5)])
    assert {type(quantizer) for quantizer in sites(made).values()} == {Affine}
    assert len(made.first.weight.unique()) <= 4
    assert bool(torch.isfinite(made(NET.example)).all())
