"""One way to apply a method: what it matches, what it notices, what it says."""

import copy
from dataclasses import dataclass

import pytest
import torch

from cortado.engine.stage import apply_stage, begin, start
from cortado.errors import BadValue, Failed, NothingChanged
from cortado.methods.finetune import Finetune
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.aware import QuantizeAware
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.quantized import Quantized
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]
TASK = NET.task()


def same(one, other):
    states = one.state_dict(), other.state_dict()
    return list(states[0]) == list(states[1]) and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@dataclass(frozen=True)
class InPlace(Method):
    """Adds to a bias without an editing operation."""

    amount: float = 0.0

    def apply(self, view, task):
        with torch.no_grad():
            view.network.head.bias.add_(self.amount)


@dataclass(frozen=True)
class ThereAndBack(Method):
    """Writes other values and then the old ones again, in a form of their own."""

    lossy = True

    def apply(self, view, task):
        for weight in view.weights("head"):
            values = weight.dense().clone()
            weight.set_form(Dense(values + 1))
            weight.set_form(Dense(values))


@dataclass(frozen=True)
class Broken(Method):
    """Has a mistake."""

    def apply(self, view, task):
        raise KeyError("nothing")


def test_stage_does_by_itself_what_match_does_by_hand():
    network, original = NET.make(), NET.make()
    reference = copy.deepcopy(network)
    view = View(network, original, NET.example, reference=reference)
    PruneWeights(keep=0.5).apply(view, TASK)
    without = copy.deepcopy(network)
    MatchMoments().apply(view, TASK)
    state = apply_stage(PruneWeights(keep=0.5), start(NET.make(), original, NET.example), TASK)
    assert same(state.network, network) and not same(network, without) and same(state.reference, reference)
    for more in ({"match_moments": False}, {"following": MatchMoments()}):
        state = apply_stage(PruneWeights(keep=0.5), start(NET.make(), original, NET.example), TASK, **more)
        assert same(state.network, without)


def test_moments_stay_where_no_matrix_changed():
    state = apply_stage(QuantizeWeights(where="*.bias"), begin(NET.make(), NET.example), TASK)
    before = dict(NET.make().named_buffers())
    assert all(torch.equal(before[name], value) for name, value in state.network.named_buffers() if name in before)
    assert isinstance(state.network.head.held_bias, Quantized)


def test_reference_and_kept_are_those_of_the_last_lossy_stage():
    original = NET.make()
    first = apply_stage(PruneChannels(keep=0.5), begin(original, NET.example), TASK, match_moments=False)
    assert first.reference is original and first.kept and not first.fresh
    tuned = apply_stage(Finetune(epochs=0.25), first, TASK)
    assert tuned.reference is original and tuned.kept == first.kept
    cut = copy.deepcopy(tuned.network)
    last = apply_stage(QuantizeWeights(bits=4), tuned, TASK)
    assert same(last.reference, cut) and not last.kept


@pytest.mark.parametrize("method", [InPlace(), ThereAndBack()])
def test_stage_that_leaves_every_value_says_so(method):
    with pytest.raises(NothingChanged, match=r"stage 3 \(.*\): it changed nothing\. Check its pattern"):
        apply_stage(method, begin(NET.make(), NET.example), TASK, where=f"stage 3 ({method.name()})")
    apply_stage(method, begin(NET.make(), NET.example), TASK, check=False)


def test_change_made_without_an_editing_operation_is_noticed():
    state = apply_stage(InPlace(amount=0.5), begin(NET.make(), NET.example), TASK)
    torch.testing.assert_close(state.network.head.bias, NET.make().head.bias + 0.5)


def test_match_may_find_nothing_to_mend():
    state = begin(NET.make(), NET.example)
    assert same(apply_stage(MatchMoments(), state, TASK).network, NET.make())


def test_last_stage_ends_what_is_latent():
    state = apply_stage(QuantizeAware(bits=4), begin(NET.make(), NET.example), TASK, last=True)
    assert isinstance(state.network.stem.held_weight, Quantized)


def test_first_state_is_a_copy_that_shares_nothing_and_lies_in_order():
    original = NET.make()
    original.second.weight.data = original.second.weight.data.to(memory_format=torch.channels_last)
    network = begin(original, NET.example).network
    assert same(network, original) and all(value.is_contiguous() for value in network.state_dict().values())
    mine = {value.data_ptr() for value in original.state_dict().values()}
    assert not mine & {value.data_ptr() for value in network.state_dict().values()}


def test_errors_say_in_which_stage():
    with pytest.raises(
        Failed, match=r"stage 2 \(broken\): it ended with KeyError: 'nothing' \(test_stage.py, line \d+"
    ):
        apply_stage(Broken(), begin(NET.make(), NET.example), TASK, where="stage 2 (broken)")
    with pytest.raises(BadValue, match=r"^stage 1: where: 'frist' matches no weight"):
        apply_stage(PruneWeights(where="frist"), begin(NET.make(), NET.example), TASK, where="stage 1")
