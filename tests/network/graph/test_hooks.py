"""Layers that are called with names are watched as those called by place."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cortado.importance.importance import score
from cortado.methods.factorize.response import FactorizeResponse
from cortado.methods.match_moments import MatchMoments
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.weights import PruneWeights
from cortado.network.graph.hooks import before_call
from cortado.network.view import View
from cortado.task.task import Data, Task

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
DATA = Data(IMAGES, torch.arange(16) % 4)
TASK = Task(DATA, DATA, DATA, calibration=DATA)


class ByPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.two(torch.relu(self.norm(self.one(images))))).mean((2, 3)))


class ByName(ByPlace):
    def forward(self, images: Tensor) -> Tensor:
        activation = torch.relu(self.norm(input=self.one(input=images)))
        return self.head(input=torch.relu(self.two(input=activation)).mean((2, 3)))


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(2)
    place = ByPlace().eval()
    name = ByName().eval()
    name.load_state_dict(place.state_dict())
    return place, name


@pytest.mark.parametrize("by", ["curvature", "taylor", "zeros", "reconstruction", "lasso"])
def test_units_are_worth_the_same(by: str) -> None:
    found = []
    for network in pair():
        view = View(network, network, IMAGES[:2])
        found.append(score(by).of_units(view.groups.free, view, TASK))
    for place, name in zip(*found, strict=True):
        torch.testing.assert_close(name, place)


@pytest.mark.parametrize(
    "method",
    [
        PruneWeights(keep=0.5, by="activation"),
        PruneChannels(keep=0.5, reconstruct=True),
        FactorizeResponse(keep=0.7, where="two.weight"),
    ],
    ids=lambda method: method.name(),
)
def test_methods_and_match_do_the_same(method) -> None:
    answers = []
    for network in pair():
        view = View(network, copy.deepcopy(network), IMAGES[:2], reference=copy.deepcopy(network))
        method.apply(view, TASK)
        MatchMoments().apply(view, TASK)
        answers.append(network(IMAGES))
    torch.testing.assert_close(answers[1], answers[0])


class Mix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))

    def forward(self, activation: Tensor, scale: Tensor) -> Tensor:
        return scale * (activation @ self.weight.T)


def test_the_activation_is_what_the_layer_names_first_not_the_call() -> None:
    layer, seen = Mix(), []
    handle = before_call(layer, lambda layer, activation: seen.append(activation) or activation * 2)
    activation, scale = torch.ones(4, 3), torch.full((1,), 5.0)
    assert layer(scale=scale, activation=activation)[0, 0].item() == 30.0 and seen[0] is activation
    handle.remove()
