"""Moves: index tags say where every entry of an axis lands, for any operator that only moves data."""

import pytest
import torch
from torch import Tensor

from cortado.network.graph.axes.moves import axes_after_move
from cortado.network.graph.axes.variables import Variables

SHAPE = (2, 6, 4)
CANDIDATE_RECIPES = {
    "permute": lambda x: x.permute(2, 0, 1),
    "reshape": lambda x: x.reshape(2, 3, 2, 4),
    "flatten": lambda x: x.flatten(1),
    "shuffle": lambda x: x.view(2, 3, 2, 4).transpose(1, 2).reshape(2, 6, 4),
    "slice": lambda x: x[:, 1:5],
    "reverse": lambda x: x.flip(1),
    "gather": lambda x: x[:, [5, 0, 3]],
    "pad": lambda x: torch.nn.functional.pad(x, (0, 0, 2, 1)),
    "repeat": lambda x: x.repeat_interleave(2, 1),
}


@pytest.mark.parametrize("way", list(CANDIDATE_RECIPES))
def test_zero_entries_land_where_the_tags_say(way: str) -> None:
    """Put out the entries of one variable of the middle axis: exactly those that it marks vanish from the output."""
    variables = Variables()
    axis = variables.fresh(6)
    (activation,) = axes_after_move(
        variables, [SHAPE], [[None, axis, None]], lambda given: CANDIDATE_RECIPES[way](given[0]), "why"
    )
    full = CANDIDATE_RECIPES[way](torch.ones(SHAPE))
    rows = variables.resolve(axis)
    for variable in set(rows.flatten().tolist()) - set(variables.marks.frozen):
        ones = torch.ones(SHAPE)
        ones[:, torch.from_numpy((rows == variable).any(1))] = 0
        predicted = torch.ones_like(full, dtype=torch.bool)
        for place, found in enumerate(activation):
            if found is not None:
                gone = torch.from_numpy((variables.resolve(found) == variable).any(1))
                predicted &= ~gone.view([-1 if d == place else 1 for d in range(full.dim())])
        assert torch.equal(CANDIDATE_RECIPES[way](ones) != 0, predicted & (full != 0)), (way, variable)


def test_two_inputs_side_by_side_keep_their_own_variables() -> None:
    variables = Variables()
    one, two = variables.fresh(3), variables.fresh(2)

    def beside(given: list[Tensor]) -> Tensor:
        return torch.cat(given, 1)

    (activation,) = axes_after_move(variables, [(2, 3), (2, 2)], [[None, one], [None, two]], beside, "why")
    assert variables.resolve(activation[1]).flatten().tolist() == [0, 1, 2, 3, 4]
    assert not variables.marks.frozen


def test_entry_that_is_picked_out_of_an_axis_freezes_it() -> None:
    variables = Variables()
    axis = variables.fresh(6)
    axes_after_move(variables, [SHAPE], [[None, axis, None]], lambda given: given[0][:, 2], "picked")
    assert "picked" in variables.marks.frozen.values()
