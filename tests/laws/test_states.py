"""Every method works on every state that a method leaves, and what was made before survives or a note says that it does not."""

import contextlib

import pytest
import torch

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, NothingChanged
from cortado.file.artifact import decode, encode
from tests.laws.idle import IDLE
from tests.laws.small_methods import ALL_METHODS, small
from tests.laws.states import MEETINGS, STATES
from tests.laws.still_there import gone, says_so
from tests.laws.tiny_nets import BY_NAME
from tests.laws.two_stages import after_both


@pytest.mark.parametrize(("state", "method"), MEETINGS)
def test_method_meets_a_state(state, method):
    """Outputs stay finite, the file gives the network back bit for bit, and nothing is undone in silence."""
    net = STATES[state].net_for(method)
    tiny = BY_NAME[net]
    if (state, method) == ("a cut", "rewind"):
        with pytest.raises(BadNetwork, match="no initial values"):
            after_both(STATES[state].stages, method, net)
        return
    if state in IDLE.get(method, ()):
        with pytest.raises(NothingChanged, match=rf"\({method}\)"):
            after_both(STATES[state].stages, method, net)
        return
    two = after_both(STATES[state].stages, method, net)
    assert bool(torch.isfinite(two.made(tiny.example)).all())
    again = decode(two.body, two.base)
    assert torch.equal(again(tiny.example), two.made(tiny.example))
    lost = [] if says_so(two.notes) else gone(two.between, two.made)
    if len(two.body) > 1.02 * len(two.former_body):
        assert any("The file grows from" in note for note in two.notes)
    assert not lost, lost


def test_idle_meetings_are_tried():
    idle = {(state, method) for method, states in IDLE.items() for state in states}
    assert idle <= set(MEETINGS)


def test_every_method_meets_every_state_but_where_it_finds_no_work():
    met = {method: {state for state, other in MEETINGS if other == method} for method in ALL_METHODS}
    assert not [method for method, states in met.items() if len(states) < 2]
    assert len(MEETINGS) > 0.9 * len(STATES) * len(ALL_METHODS)


def test_run_from_a_kept_first_stage_is_the_run_of_both():
    """Whatever is kept of the first stages: the file is to the byte what compress makes of all."""
    for state, method in MEETINGS[:: len(MEETINGS) // 6]:
        net = STATES[state].net_for(method)
        with contextlib.suppress(NothingChanged, BadNetwork):
            two = after_both(STATES[state].stages, method, net)
            whole, _ = compress(two.original, BY_NAME[net].task(), [*STATES[state].stages, small(method)])
            assert two.body == encode(whole, two.base)
