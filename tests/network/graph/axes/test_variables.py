"""Variables: joining, substituting several for one, and what is said of them."""

import numpy as np

from cortado.network.graph.axes.variables import Variables


def rows(variables: Variables, axis) -> list[list[int]]:
    return variables.resolve(axis).tolist()


def test_joined_axes_are_one() -> None:
    variables = Variables()
    one, two, three = (variables.fresh(3) for _ in range(3))
    variables.join(one, two, "sum")
    variables.join(two, three, "sum")
    assert rows(variables, one) == rows(variables, three) == [[0], [1], [2]]


def test_axis_of_unknown_entries_or_another_length_freezes_what_it_meets() -> None:
    for other in (None, "longer"):
        variables = Variables()
        axis = variables.fresh(3)
        variables.join(axis, None if other is None else variables.fresh(4), "why")
        assert [variables.marks.frozen.get(number) for number in range(3)] == ["why"] * 3


def test_one_variable_stands_for_a_row_of_several() -> None:
    """Entry (i, j) of a flattened grid goes with row i or with column j."""
    variables = Variables()
    flat, high, wide = variables.fresh(6), variables.fresh(2), variables.fresh(3)
    grid = np.concatenate([np.repeat(high, 3, 0), np.tile(wide, (2, 1))], 1)
    variables.join(flat, grid, "view")
    assert rows(variables, flat) == grid.tolist()


def test_rows_of_their_own_take_the_repeating_variables_they_meet() -> None:
    variables = Variables()
    gates, units = variables.fresh(8), variables.fresh(2)
    variables.join(np.tile(units, (4, 1)), gates, "lstm")
    assert len(np.unique(variables.resolve(gates))) == 2
    assert not variables.marks.frozen


def test_patterns_that_do_not_map_one_to_one_are_frozen() -> None:
    variables = Variables()
    one, two = variables.fresh(2), variables.fresh(2)
    variables.join(np.repeat(one, 2, 0), np.tile(two, (2, 1)), "crosswise")
    assert set(variables.marks.frozen.values()) == {"crosswise"}


def test_marks_follow_joins_and_substitutions() -> None:
    variables = Variables()
    one, two, high, wide = (variables.fresh(size) for size in (6, 6, 2, 3))
    variables.freeze(two, "frozen")
    variables.mark(one, variables.marks.inexact, "inexact")
    variables.join(one, two, "")
    grid = np.concatenate([np.repeat(high, 3, 0), np.tile(wide, (2, 1))], 1)
    variables.join(one, grid, "")
    everything = set(np.concatenate([high, wide]).flatten().tolist())
    assert set(variables.marks.frozen) == everything == set(variables.marks.inexact)


def test_many_variables_grow_the_tables() -> None:
    variables = Variables()
    first, second = variables.fresh(5000), variables.fresh(20000)
    variables.join(first, second[:5000], "")
    assert np.array_equal(variables.resolve(second)[:5000], variables.resolve(first))
    assert len(np.unique(variables.resolve(second))) == 20000
