"""Experts compute what the layer inside does, of chosen groups alone, in training, in eval mode and in a runtime's file."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.file.artifact import decode, encode
from cortado.network.view import View
from cortado.parts.blocks.experts import ACTIVATIONS, Experts


def layer(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=bias), nn.GELU(), nn.Linear(8, 5, bias=bias)).eval()


def experts(chosen=2, inner=None, **how):
    torch.manual_seed(1)
    return Experts(layer() if inner is None else inner, "0", "2", "gelu", 4, chosen, 3, **how).eval()


ROWS = torch.randn(7, 3, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("bias", [True, False])
def test_all_experts_together_are_the_layer(bias):
    inner = layer(bias)
    torch.testing.assert_close(experts(4, inner)(ROWS), inner(ROWS))


def test_output_is_the_sum_of_the_chosen_groups_and_the_means_of_the_others():
    block, inner = experts(), layer()
    with torch.no_grad():
        block.expert_chain.means.normal_()
    rows = ROWS.reshape(-1, 6)
    chosen = block.expert_router(rows).chosen
    hidden = functional.gelu(rows @ inner[0].weight.T + inner[0].bias)
    wanted = inner[2].bias.expand(len(rows), 5).clone()
    for row in range(len(rows)):
        for expert in range(4):
            part = slice(2 * expert, 2 * expert + 2)
            adds = inner[2].weight[:, part] @ hidden[row, part]
            wanted[row] += adds if chosen[row, expert] else block.expert_chain.means[expert]
    assert chosen.sum(1).tolist() == [2] * len(rows)
    torch.testing.assert_close(block(ROWS), wanted.reshape(7, 3, 5))


@pytest.mark.parametrize("weighting", ["even", "softmax"])
def test_training_computes_the_same_and_teaches_the_router(weighting):
    block = experts(weighting=weighting)
    with torch.no_grad():
        block.expert_chain.means.normal_()
    torch.testing.assert_close(copy.deepcopy(block).train()(ROWS), block(ROWS))
    block.train()(ROWS).square().mean().backward()
    assert all(bool(value.grad.abs().sum() > 0) for value in block.parameters())


def test_softmax_weights_of_the_chosen_sum_to_one():
    routing = experts(weighting="softmax").expert_router(ROWS.reshape(-1, 6))
    torch.testing.assert_close(routing.gates.sum(1), torch.ones(21))
    assert bool(((routing.gates > 0) == routing.chosen).all())


def test_load_is_how_often_an_expert_is_chosen_with_other_noise():
    """Against a million draws of the noise of one expert, the others' staying as they are."""
    router = experts(1, noisy=True).expert_router.train()
    rows = ROWS.reshape(-1, 6)[:1]
    with torch.no_grad():
        torch.manual_seed(3)
        hidden = torch.relu(router.hidden(rows))
        spread = functional.softplus(router.noise(hidden)) + 1e-2
        torch.manual_seed(3)
        noise = torch.randn_like(spread)
        torch.manual_seed(3)
        load = router(rows).load[0]
        for expert in range(4):
            scores = router.scores(hidden) + noise * spread
            others = torch.cat([scores[0, :expert], scores[0, expert + 1 :]]).max()
            drawn = router.scores(hidden)[0, expert] + torch.randn(1_000_000) * spread[0, expert]
            assert float((drawn > others).float().mean()) == pytest.approx(float(load[expert]), abs=3e-3)


def test_noise_is_for_training_alone():
    block = experts(noisy=True)
    assert torch.equal(block(ROWS), block(ROWS)) and not torch.equal(block.train()(ROWS), block(ROWS))


@pytest.mark.parametrize("experts_of", [(3, 1), (16, 1), (4, 5), (4, 0)])
def test_groups_that_do_not_fit_are_refused(experts_of):
    with pytest.raises(BadValue, match="8 inner neurons do not make"):
        Experts(layer(), "0", "2", "gelu", *experts_of)


@pytest.mark.parametrize("activation", ["relu", "tanh gelu"])
@pytest.mark.parametrize("weighting", ["even", "softmax"])
def test_file_gives_them_back(activation, weighting):
    make = lambda: nn.Sequential(nn.Linear(6, 6), layer()).eval()  # noqa: E731
    torch.manual_seed(4)
    original = make()
    network = copy.deepcopy(original)
    block = Experts(network.get_submodule("1"), "0", "2", activation, 4, 2, 3, weighting, True).eval()
    View(network, original, ROWS).wrap("1", block)
    again = decode(encode(network, original), original)
    assert again.get_submodule("1").spec() == block.spec()
    assert torch.equal(again(ROWS), network(ROWS))


def test_activations_keep_their_places_in_files():
    assert list(ACTIVATIONS) == ["relu", "gelu", "tanh gelu", "silu", "tanh", "sigmoid", "hardtanh"]
