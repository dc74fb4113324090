"""Every method works on every state that a method leaves, and what was made before survives or a note says that it does not."""

import contextlib
import itertools
import re

import pytest
import torch

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, NothingChanged
from cortado.file.artifact import decode, encode
from tests.laws.asked import FINDS_WORK, asked_of, would_change
from tests.laws.small_methods import ALL_METHODS, small
from tests.laws.states import HALF, MEETINGS, STATES
from tests.laws.still_there import gone, says_so
from tests.laws.tiny_nets import BY_NAME
from tests.laws.two_stages import after_both, asked_between, view_between


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Half of the meetings, or all of them with --all-pairs."""
    if "state" in metafunc.fixturenames:
        metafunc.parametrize(("state", "method"), MEETINGS if metafunc.config.getoption("--all-pairs") else HALF)


def test_half_of_the_meetings_have_every_method_and_every_state():
    assert {state for state, _ in HALF} == set(STATES) and {method for _, method in HALF} == set(ALL_METHODS)
    assert len(HALF) == len(set(HALF)) >= len(MEETINGS) // 2


def test_method_meets_a_state(state, method):
    """Outputs stay finite, the file gives the network back bit for bit, and nothing is undone in silence.

    A method that says that it does not find what it needs ends in these words, and would change nothing.
    """
    net, first = STATES[state].net_for(method), STATES[state].stages
    said = asked_between(first, method, net)
    if said.error is not None:
        with pytest.raises(said.error, match=re.escape(f"({method}): {said.words}")):
            after_both(first, method, net)
        if said.error is NothingChanged:
            assert not would_change(small(method), view_between(first, method, net), net)
        return
    two, tiny = after_both(first, method, net), BY_NAME[net]
    assert bool(torch.isfinite(two.made(tiny.example)).all())
    again = decode(two.body, two.base)
    assert torch.equal(again(tiny.example), two.made(tiny.example))
    lost = [] if says_so(two.notes) else gone(two.between, two.made)
    if len(two.body) > 1.02 * len(two.former_body):
        assert any("The file grows from" in note for note in two.notes)
    assert not lost, lost


@pytest.mark.parametrize("method", ALL_METHODS)
def test_method_finds_what_it_needs_in_two_states_or_more(method):
    """No need is one that is never met."""
    met = (
        state
        for state in STATES
        if (net := STATES[state].net_for(method)) and asked_between(STATES[state].stages, method, net) == FINDS_WORK
    )
    assert len(list(itertools.islice(met, 2))) == 2


def test_methods_find_work_in_a_network_of_nearly_every_state():
    met = [asked_of(method, STATES[state].net_for(method)) == FINDS_WORK for state, method in MEETINGS]
    assert sum(met) > 0.9 * len(STATES) * len(ALL_METHODS)


def test_run_from_a_kept_first_stage_is_the_run_of_both():
    """Whatever is kept of the first stages: the file is to the byte what compress makes of all."""
    for state, method in MEETINGS[:: len(MEETINGS) // 6]:
        net = STATES[state].net_for(method)
        with contextlib.suppress(NothingChanged, BadNetwork):
            two = after_both(STATES[state].stages, method, net)
            whole, _ = compress(two.original, BY_NAME[net].task(), [*STATES[state].stages, small(method)])
            assert two.body == encode(whole, two.base)
