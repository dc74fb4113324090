"""simplify/norms: two numbers a channel say what four said, where they belong to one norm."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import NothingChanged
from cortado.methods.simplify.norms import SimplifyNorms
from cortado.network.view import View
from tests.laws.tiny_nets import BY_NAME


def seen(share: bool) -> tuple[nn.Module, nn.Module, View, object]:
    tiny = BY_NAME["residual"]
    network = tiny.make().eval()
    torch.manual_seed(5)
    for norm in (network.norm, network.second_norm):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    if share:
        network.second_norm.weight = network.norm.weight
    original = copy.deepcopy(network)
    return network, original, View(network, original, tiny.example), tiny


@pytest.mark.parametrize("share", [False, True])
def test_the_network_computes_the_same(share: bool) -> None:
    network, original, view, tiny = seen(share)
    SimplifyNorms().apply(view, tiny.task())
    torch.testing.assert_close(network(tiny.example), original(tiny.example), rtol=1e-4, atol=1e-5)
    assert float(network.first_norm.running_mean.abs().max()) == 0


def test_norms_that_share_their_gain_are_left_alone() -> None:
    network, original, view, tiny = seen(True)
    with pytest.raises(NothingChanged):
        SimplifyNorms(where="norm.weight").apply(view, tiny.task())
    assert torch.equal(network.norm.running_mean, original.norm.running_mean)
