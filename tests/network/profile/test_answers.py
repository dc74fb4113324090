"""Answers: what a network gives at each of its exits, and what it has computed by then."""

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.methods.factorize.svd import FactorizeSvd
from cortado.network.profile.answers import answers_on, multiply_adds_so_far
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.blocks.rows import FirstSure
from tests.laws.tiny_nets import BY_NAME

INPUTS = torch.randn(4, 6)


class Early(nn.Module):
    """Two answers; the second needs what the first one had, and a layer beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.beside, self.late = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 10)
        self.first, self.last, self.idle = nn.Linear(8, 3), nn.Linear(10, 3), nn.Linear(6, 100)
        self.choose = FirstSure(2)

    def answers(self, inputs):
        shared, beside, _ = self.shared(inputs), self.beside(inputs), self.idle(inputs)
        return self.first(shared), self.last(torch.relu(self.late(shared + beside)))

    def forward(self, inputs):
        return self.choose(*self.answers(inputs))


class Two(nn.Module):
    """A network that chooses twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Early(), Early()

    def forward(self, inputs):
        return self.one(inputs) + self.other(inputs)


def test_cost_is_of_what_the_answers_so_far_need():
    """6 x 8 + 8 x 3, then the layer beside, 6 x 8, the late one, 8 x 10, and the last, 10 x 3; the idle one never."""
    assert multiply_adds_so_far(Early(), INPUTS) == {"choose": (72, 72 + 48 + 80 + 30)}
    assert profile(Early(), INPUTS).total("multiply_adds").value == 72 + 48 + 80 + 30 + 600
    assert multiply_adds_so_far(Early().to("meta"), INPUTS) == {"choose": (72, 230)}


def test_low_rank_weights_cost_as_much_as_their_factors():
    torch.manual_seed(0)
    network = Early()
    FactorizeSvd(keep=0.5, where="late").apply(View(network, network, INPUTS), BY_NAME["mlp"].task())
    before, after = 230, profile(network, INPUTS).total("multiply_adds").value - 600
    assert after < before and multiply_adds_so_far(network, INPUTS) == {"choose": (72, after)}


def test_answers_are_all_that_the_network_computes():
    network = Early()
    found = answers_on(network.train(), [INPUTS[:3], INPUTS[3:]])
    torch.testing.assert_close(found, torch.stack(network.answers(INPUTS)).detach())
    assert network.training and not any(one._forward_pre_hooks for one in network.modules())


def test_network_that_chooses_twice_is_asked_by_path():
    network = Two()
    assert set(multiply_adds_so_far(network, INPUTS)) == {"one.choose", "other.choose"}
    found = answers_on(network, [INPUTS], "other.choose")
    torch.testing.assert_close(found, torch.stack(network.other.answers(INPUTS)).detach())
    with pytest.raises(
        BadNetwork, match=r"say which answers: the network chooses among some at one.choose, other.choose"
    ):
        answers_on(network, [INPUTS])


def test_network_of_one_answer_is_refused():
    with pytest.raises(BadNetwork, match="Linear has one answer only"):
        multiply_adds_so_far(nn.Linear(6, 3), INPUTS)
