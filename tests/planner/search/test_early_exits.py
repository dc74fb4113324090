"""Early exits in a search: proposed once, last, and only where they can pay."""

import pytest
import torch
from torch import nn

from cortado.methods.conditional.exits import ConditionalExits
from cortado.planner.search.early_exits import EarlyExits, sure_share
from cortado.planner.search.goal import GoalSearch
from cortado.planner.search.proposals import Proposals
from cortado.planner.search.trials import SearchGoal, Trial
from cortado.task.limits import read_limits
from tests.planner.search.test_cascades import large, small, task

SCORE = "score >= -1 %"


def two_epochs(shape):
    return 2.0


def ideas(network=None, made=None, minimise="latency", lose=1.0):
    return EarlyExits(SearchGoal(read_limits([SCORE]), minimise, 1, "%"), network or large(), made or task(), lose)


def test_one_exit_is_proposed_with_training_and_thresholds():
    found = ideas().next([], two_epochs)
    names = [next(iter(stage)) for stage in found.recipe["stages"]]
    assert names == ["conditional/exits", "quantize/weights", "quantize/activations", "conditional/thresholds"]
    trial = Trial(found.recipe, found.shape)
    assert trial.epochs == 2 and ideas().next([trial], two_epochs) is None


def test_gain_is_what_follows_the_middle_for_the_samples_that_are_sure():
    """Of 24 equal layers half follow the middle; the head's cost is that of one layer or so."""
    network, made = large(), task()
    with torch.no_grad():
        sure = float((network(made.validation.inputs).softmax(1).amax(1) > 0.95).float().mean())
    assert sure_share(network, made) == pytest.approx(sure) and sure > 0.2
    assert ideas(network, made).largest_gain() == pytest.approx(sure / 2, abs=0.05)


@pytest.mark.parametrize(
    "more",
    [
        {"network": small()},
        {"made": task(wrong=0.0)},
        {"minimise": "size"},
        {"lose": 0.2},
        {"network": nn.Linear(12, 4)},
    ],
)
def test_nothing_is_proposed_where_it_cannot_pay_or_not_be_told(more):
    """Too shallow; data known by heart; no clock; too few samples for so little harm; no place."""
    assert ideas(**more).next([], two_epochs) is None
    assert ideas().next([], lambda shape: 0.0) is None


def test_search_proposes_it_when_nothing_else_is_left(monkeypatch):
    search = GoalSearch.__new__(GoalSearch)
    asked = ideas()
    search.trials, search.members, search.tail = [], (), ""
    search.cascades = type("NoCascades", (), {"next": lambda self, trials: None, "lose": 1.0})()
    search.engine = type("Made", (), {"network": asked.network, "task": asked.task, "wanted": asked.wanted})()
    shapes = Proposals(asked.wanted, ())
    monkeypatch.setattr(Proposals, "next", lambda self, trials, epochs: None)
    assert ConditionalExits.name() in search.next(shapes, two_epochs).recipe["stages"][0]
    search.members = ("resnet_8",)
    assert search.next(shapes, two_epochs) is None
