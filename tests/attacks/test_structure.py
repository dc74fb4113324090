"""Networks and shares on which a cut cannot be made: words, nothing changed, and what needs no tracing goes on."""

import copy

import pytest
import torch
from torch import Tensor, nn

import cortado
from cortado.engine.recipe import read_recipe
from cortado.errors import BadNetwork, CortadoError
from cortado.network.view import View
from cortado.task.task import Data, Task


class Doubting(nn.Module):
    """Looks at its data to choose its way: no program without the data."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.one, self.two, self.leave = (nn.Linear(a, b) for a, b in ((6, 8), (8, 8), (8, 8), (8, 3)))

    def forward(self, activation: Tensor) -> Tensor:
        activation = torch.relu(self.enter(activation))
        if float(activation.detach().sum()) > 10:
            activation = self.one(activation)
        else:
            activation = self.two(activation)
        return self.leave(torch.relu(activation))


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, activation: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(activation)))


def task() -> Task:
    inputs = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
    targets = (inputs[:, 0] > 0).long()
    return Task(*(Data(inputs[a:b], targets[a:b]) for a, b in ((0, 48), (48, 72), (72, 96))), batch=16)


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


@pytest.mark.parametrize(
    "recipe", ["prune/weights keep=0.5 | finetune epochs=0.5", "factorize/svd rank=2", "share/kmeans bits=2"]
)
def test_untraceable_network_takes_methods_that_need_no_trace(recipe: str) -> None:
    small, report = cortado.compress(made(Doubting), task(), recipe)
    assert report.size_bytes < report.original_bytes
    assert small(torch.randn(3, 6)).shape == (3, 3)


@pytest.mark.parametrize("recipe", ["prune/channels keep=0.5", "prune/heads keep=0.5"])
def test_and_a_cut_names_the_line_that_blocks(recipe: str) -> None:
    with pytest.raises(BadNetwork, match=r"test_structure\.py:\d+: if float\(activation\.detach\(\)\.sum\(\)\) > 10"):
        cortado.compress(made(Doubting), task(), recipe)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("prune/channels keep=0 least=0", "would leave no channels of first"),
        ("prune/channels keep=0.05 least=0.01", "would leave no channels of first"),
        ("prune/channels keep=0.01 of=multiply_adds", r"more than keep=0\.01\. Lower least"),
        ("prune/channels where=second", "selects no complete group of channels.* first"),
        ("prune/channels where=frist", "Similar names: first"),
        ("prune/channels by=magnituds", "magnitude"),
        ("prune/channels multiple=0", "multiple must"),
    ],
)
def test_shares_and_patterns_that_make_no_sense_are_refused_in_words(recipe: str, says: str) -> None:
    network = made(Chain)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(CortadoError, match=says):
        cortado.compress(network, task(), recipe)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_cut_that_fails_midway_leaves_the_working_copy_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof after the cut says no: every tensor and attribute is put back."""
    network = made(Chain)
    before, example = copy.deepcopy(network.state_dict()), torch.randn(2, 6)
    view = View(network, made(Chain), example)
    (group,) = view.groups.free
    monkeypatch.setattr("cortado.network.coupling.cut.difference", lambda *_: 0.5)
    with pytest.raises(BadNetwork, match=r"it would compute something else .*0\.5"):
        view.cut({group: torch.tensor([0, 1])})
    assert network.first.out_features == network.second.in_features == 8
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_channels_in_a_share_of_multiply_adds_are_at_most_that() -> None:
    network = made(Chain)
    view = View(network, made(Chain), torch.randn(2, 6))
    read_recipe("prune/channels keep=0.6 of=multiply_adds").stages[0].apply(view, task())
    assert network.first.out_features == 4, "5 of 8 are 62.5 % of the multiply-adds"
