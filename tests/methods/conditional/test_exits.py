"""conditional/exits: heads learn, the network stays as it is, and places where nobody can leave are refused."""

import pytest
import torch

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, NothingChanged
from cortado.methods.conditional.exits import ConditionalExits
from cortado.network.view import View
from cortado.parts.blocks.exit import exit_head
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


def view_of(name="residual"):
    return View(BY_NAME[name].make(), BY_NAME[name].make(), BY_NAME[name].example)


def test_heads_learn_and_the_network_stays_as_it_is():
    view, task = view_of(), NET.task()
    before = {name: value.clone() for name, value in view.network.state_dict().items()}
    ConditionalExits(at="second, stem", epochs=4, lr=0.02, convolutions=1, width=8).apply(view, task)
    after = view.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert view.network.exit_facts.at == "stem" and view.network.inner.exit_facts.at == "second"
    for curve in (view.curves["exit 1"], view.curves["exit 1 of exit_stem.sure"]):
        assert curve[-1] < curve[0]


def test_joint_training_moves_the_network_too():
    view = view_of()
    before = view.network.stem.weight.clone()
    ConditionalExits(at="second", epochs=1, lr=0.02, joint=True).apply(view, NET.task())
    assert not torch.equal(view.network.stem.weight, before)


def test_without_a_place_the_middle_is_taken():
    view = view_of()
    ConditionalExits(epochs=0.25).apply(view, NET.task())
    assert view.network.exit_facts.at in ("first_norm", "first", "second")


def test_exits_are_cut_rounded_and_end_with_thresholds():
    recipe = (
        "conditional/exits at=stem epochs=2 | prune/channels keep=0.7 | quantize/weights bits=8 | "
        "quantize/activations | conditional/thresholds lose=60 seen=true"
    )
    small, report = compress(NET.make(), NET.task(), recipe)
    assert exit_head(small).sure.thresholds[0] < 1
    assert "what follows exit_stem ran for" in str(report)


def test_places_where_nobody_can_leave_are_refused():
    task = NET.task()
    with pytest.raises(BadNetwork, match="after 'nowhere': it never runs. Name another, such as"):
        ConditionalExits(at="nowhere").apply(view_of(), task)
    tied = view_of("tied")
    shared = next((one.path for one in tied.graph.calls if len(tied.graph.of(one.path)) > 1), None)
    if shared:
        with pytest.raises((BadNetwork, NothingChanged), match="more than once|has none"):
            ConditionalExits(at=shared).apply(tied, BY_NAME["tied"].task())
