"""quantize/clip: shares and bits as given, and pairs found by optimisation that cost no more than the first."""

import pytest
import torch

from cortado.engine.compress import compress
from cortado.errors import MissingPackage
from cortado.methods.finetune import Finetune
from cortado.methods.quantize.clip import QuantizeClip
from cortado.methods.quantize.clip_search import coded_bits
from cortado.network.view import View
from cortado.parts.forms.clipped import Clipped
from cortado.parts.forms.codebook import Codebook
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["mlp"]


def applied(**knobs):
    network = NET.make()
    view = View(network, NET.make(), NET.example)
    QuantizeClip(**knobs).apply(view, NET.task())
    return network, view


def test_every_layer_has_the_bits_and_zeros_given():
    network, _ = applied(bits=3, zeros=0.6)
    for layer in (network[0], network[2]):
        assert isinstance(layer.held_weight, Clipped) and len(layer.weight.unique()) <= 8
        assert float((layer.weight == 0).float().mean()) == pytest.approx(0.6, abs=0.04)


def test_it_trains_and_is_finalized_into_shared_values():
    made, _ = compress(NET.make(), NET.task(), [QuantizeClip(bits=2, zeros=0.3), Finetune(epochs=1)])
    assert isinstance(made[0].held_weight, Codebook) and len(made[0].weight.unique()) <= 4


def test_bits_are_entropy_and_a_book():
    values = torch.tensor([0.0] * 4 + [1.0] * 2 + [2.0] * 2)
    assert coded_bits(values) == pytest.approx(8 * 1.5 + 3 * 32)


def pairs(network):
    return [(round(float(layer.held_weight.zeros), 4), layer.held_weight.width) for layer in (network[0], network[2])]


def test_search_follows_the_price_of_bits_and_is_the_same_again():
    pytest.importorskip("optuna")
    dear, view = applied(trials=12, strength=1000.0)
    free, _ = applied(trials=12, strength=0.0)
    assert len(view.notes) == 2 and "0.weight" in view.notes[0]
    bits = [sum(coded_bits(layer.weight.detach()) for layer in (made[0], made[2])) for made in (dear, free)]
    assert bits[0] < bits[1]
    assert pairs(applied(trials=12, strength=1000.0)[0]) == pairs(dear)


def test_search_finds_no_worse_than_what_it_began_with():
    pytest.importorskip("optuna")
    task = NET.task()

    def cost(network):
        with torch.no_grad():
            loss = float(task.loss(network(task.calibration.inputs), task.calibration.targets))
        entries = sum(p.numel() for p in NET.make().parameters())
        return loss + 2.0 * coded_bits(network[0].weight) / 32 / entries

    given, found = (
        applied(bits=5, zeros=0.2, where="0")[0],
        applied(bits=5, zeros=0.2, where="0", trials=10, strength=2.0)[0],
    )
    assert cost(found) <= cost(given) + 1e-6


def test_search_shows_progress():
    pytest.importorskip("optuna")
    steps = []

    class Counting:
        def bar(self, says, total):
            steps.append(("total", says, total))
            return self

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def advance(self, count=1):
            steps.append(count)

    network = NET.make()
    view = View(network, NET.make(), NET.example, progress=Counting())
    QuantizeClip(trials=3).apply(view, NET.task())
    assert steps == [("total", "quantize/clip", 6)] + [1] * 6


def test_missing_package_is_said_in_words(no_optuna):
    with pytest.raises(
        MissingPackage, match="quantize/clip: trials needs optuna, which is not installed. Run pip install"
    ):
        applied(trials=2)
