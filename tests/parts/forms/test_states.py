"""States: grids by running sums are those of a machine that is moved code by code."""

import pytest
import torch

from cortado.parts.forms.states import LAWS, codes_of, grids_of, levels_of


def step_by_step(codes: list[int], states: int, segment: int) -> list[int]:
    """The grid of each code, by moving the machine."""
    found, state = [], 0
    for place, code in enumerate(codes):
        state = 0 if place % segment == 0 else state
        found.append(state & 1)
        state = LAWS[states].after(state, code & 1)
    return found


@pytest.mark.parametrize("states", LAWS)
@pytest.mark.parametrize("segment", [1, 2, 7, 31, 64, 100, 1000])
def test_grids_are_those_of_the_machine(states, segment):
    codes = torch.randint(-5, 6, (10, 10, 7), generator=torch.Generator().manual_seed(segment))
    assert grids_of(codes, LAWS[states], segment).flatten().tolist() == step_by_step(
        codes.flatten().tolist(), states, segment
    )


def test_four_states_are_those_of_versatile_video_coding():
    """States 0 and 1 of the standard take its first grid, 2 and 3 its second; ours have the grid in the lowest bit."""
    standard = ((0, 2), (2, 0), (1, 3), (3, 1))
    ours = {0: 0, 1: 2, 2: 1, 3: 3}
    for state, after in enumerate(standard):
        for parity in (0, 1):
            assert LAWS[4].after(ours[state], parity) == ours[after[parity]]


@pytest.mark.parametrize("states", LAWS)
def test_every_state_is_reached_and_left_by_two_ways(states):
    ends = [LAWS[states].after(state, parity) for state in range(states) for parity in (0, 1)]
    assert sorted(ends) == sorted(2 * list(range(states)))


@pytest.mark.parametrize("states", LAWS)
def test_levels_are_even_on_grid_0_and_odd_or_zero_on_grid_1(states):
    codes = torch.randint(-3, 4, (50,), generator=torch.Generator().manual_seed(1))
    levels, grid = levels_of(codes, LAWS[states], 20), grids_of(codes, LAWS[states], 20)
    assert bool((levels[grid == 0] % 2 == 0).all())
    assert bool(((levels[grid == 1] % 2 == 1) | (levels[grid == 1] == 0)).all())
    assert torch.equal(codes_of(levels), codes.int())
    assert torch.equal(levels.sign(), codes.sign().int())


def test_nothing_has_no_grids():
    assert grids_of(torch.zeros(0, dtype=torch.int32), LAWS[8], 16).shape == (0,)
