"""A network that was cut learns from the channels of its original that survived, without a regressor."""

import copy
import json

import pytest
import torch
from torch import nn

from cortado.engine.stage import apply_stage, begin, cuts_from
from cortado.methods.finetune import Finetune
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.coupling.survivors import surviving_channels
from cortado.network.view import View
from cortado.training.objectives.channelwise import Channelwise
from cortado.training.objectives.features import Features
from cortado.training.objectives.matching import SelectChannels
from cortado.training.objectives.neurons import Neurons
from tests.laws.tiny_nets import BY_NAME
from tests.training.objectives.given import given_step, total

NET = BY_NAME["residual"]
BOTH = [Features(at="first_norm, second_norm"), Channelwise(at="first_norm, second_norm")]


def cut_view(rounds: int = 1) -> View:
    network = NET.make()
    view = View(network, copy.deepcopy(network), NET.example, survivors={})
    for _ in range(rounds):
        PruneChannels(keep=0.7, by="random").apply(view, NET.task())
    return view


def taps_of(network: nn.Module, *paths: str) -> dict[str, torch.Tensor]:
    found = {}
    hooks = [
        network.get_submodule(path).register_forward_hook(
            lambda module, inputs, outputs, path=path: found.update({path: outputs})
        )
        for path in paths
    ]
    network(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    for one in hooks:
        one.remove()
    return found


@pytest.mark.parametrize("objective", BOTH, ids=str)
@pytest.mark.parametrize("rounds", [1, 2])
def test_cut_network_is_compared_with_the_channels_that_survived(objective, rounds):
    view = cut_view(rounds)
    bound = objective.with_teachers([view.original], view, NET.task())
    assert bound == objective and bound.as_data() == objective.as_data()
    taps = taps_of(view.original, "first_norm", "second_norm")
    kept = {path: values[:, view.survivors[path]].detach().requires_grad_() for path, values in taps.items()}
    step = given_step(taps=kept, taught_taps=taps)
    made = bound.modules(step)
    assert len(made) == 2 and all(isinstance(one, SelectChannels) for one in made.values())
    assert all(not list(one.parameters()) and not one.state_dict() for one in made.values())
    value = total(bound, given_step(taps=kept, taught_taps=taps, modules=made))
    assert value.item() == pytest.approx(0, abs=1e-9)
    assert all(float(one.norm()) < 1e-6 for one in torch.autograd.grad(value, list(kept.values())))


@pytest.mark.parametrize("objective", BOTH, ids=str)
def test_regressor_is_learned_for_any_other_teacher(objective):
    view = cut_view()
    taps, taught = (taps_of(one, "first_norm", "second_norm") for one in (view.network, view.original))
    step = given_step(taps=taps, taught_taps=taught)
    named = type(objective)(at=objective.at, of=objective.at)
    unknown = View(view.network, view.original, view.example)
    for bound in (
        objective,
        objective.with_teachers([copy.deepcopy(view.original)], view, NET.task()),
        objective.with_teachers([view.original], unknown, NET.task()),
        named.with_teachers([view.original], view, NET.task()),
    ):
        assert sorted(bound.modules(step)) == ["regressor0", "regressor1"]


def test_finetuning_after_other_lossy_stages_still_knows_the_original_channels(monkeypatch):
    network = NET.make()
    state = begin(network, NET.example)
    learned = []
    before = Features.modules
    monkeypatch.setattr(Features, "modules", lambda self, step: learned.append(before(self, step)) or learned[-1])
    methods = (
        PruneChannels(keep=0.7, by="random"),
        PruneChannels(keep=0.7, by="random"),
        QuantizeWeights(bits=6),
        Finetune(lr=1e-3, objectives=("task", BOTH[0])),
    )
    for method in methods:
        state = apply_stage(method, state, NET.task())
    assert [sorted(one) for one in learned] == [["survivors0", "survivors1"]]
    weight = state.network.get_submodule("first").weight.detach()
    survivors = state.survivors["first"]
    assert len(weight) == len(survivors) == len(learned[0]["survivors0"].numbers)
    assert set(state.kept) == set() and len(survivors) < 8
    kept, again = cuts_from(json.loads(json.dumps(state.cuts_as_data())))
    assert kept == {} and all(torch.equal(again[path], rows) for path, rows in state.survivors.items())


class Nested(nn.Module):
    """A stem and a residual block as modules of their own, with an activation module, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.act = nn.Conv2d(1, 6, 3, padding=1), Block(), nn.ReLU()
        self.both = Beside()
        self.head = nn.Linear(12, 4)

    def forward(self, images):
        return self.head(self.both(self.act(self.block(self.stem(images)))).mean((2, 3)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, values):
        return values + self.second(torch.relu(self.first(values)))


class Beside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

    def forward(self, values):
        return torch.cat([self.one(values), self.two(values)], 1)


def test_blocks_and_activations_have_the_channels_of_the_layers_behind_them():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = Nested()
    view = View(network.eval(), copy.deepcopy(network).eval(), NET.example, survivors={})
    PruneChannels(keep=0.6, by="random").apply(view, NET.task())
    found = surviving_channels(
        view.network, view.example, view.survivors, ["block", "act", "block.first", "both", "head"]
    )
    assert torch.equal(found["block"], view.survivors["stem"]) and torch.equal(found["act"], view.survivors["stem"])
    assert torch.equal(found["block.first"], view.survivors["block.first"])
    assert len(found["block"]) < 6 and "both" not in found and "head" not in found


def test_cut_network_learns_the_teachers_neurons_among_those_it_has():
    view = cut_view()
    objective = Neurons(at="second_norm", keep=0.5).with_teachers([view.original], view, NET.task())
    assert set(objective.chosen[0].tolist()) <= set(view.survivors["second_norm"].tolist())
    taps = taps_of(view.original, "second_norm")
    kept = {"second_norm": taps["second_norm"][:, view.survivors["second_norm"]]}
    made = objective.modules(given_step(taps=kept, taught_taps=taps))
    assert total(objective, given_step(taps=kept, taught_taps=taps, modules=made)).item() == pytest.approx(0, abs=1e-12)
