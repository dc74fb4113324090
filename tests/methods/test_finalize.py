"""finalize: what was latent becomes final, all of it or the weights that where takes."""

import torch

from cortado.methods.finalize import Finalize
from cortado.methods.quantize.pact import QuantizePact
from cortado.network.finalize import in_training
from cortado.network.view import View
from cortado.parts.activations.pact import Pact
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.latent import Latent
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


def latent():
    network = NET.make()
    view = View(network, NET.make(), NET.example)
    QuantizePact().apply(view, NET.task())
    return network, view


def test_everything_is_finalized_and_computes_nearly_the_same():
    network, view = latent()
    with torch.no_grad():
        before = network(NET.example)
        Finalize().apply(view, NET.task())
        after = network(NET.example)
    assert not in_training(network)
    assert float((after - before).abs().mean()) < 0.05 * float(before.abs().mean())


def test_finalize_where_takes_only_its_weights():
    network, view = latent()
    Finalize(where="first").apply(view, NET.task())
    assert not isinstance(network.first.held_weight, Latent) and isinstance(network.second.held_weight, Latent)
    assert any(isinstance(quantizer, Pact) for quantizer in sites(network).values())
