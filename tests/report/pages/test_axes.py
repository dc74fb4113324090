"""Axes: round numbers, and places in proportion to values or to their logarithms."""

import math

import pytest

from cortado.report.pages.axes import Axis, nice_ticks, score_axis, score_labels, size_axis, size_labels


@pytest.mark.parametrize(
    "bounds", [(98.02, 99.23), (0.0, 1.0), (12.3, 12.3), (-5.0, 1e6), (99.999, 100.0), (0.0, 0.0), (-3, -3)]
)
def test_nice_ticks_cover_the_range_evenly(bounds: tuple[float, float]) -> None:
    ticks = nice_ticks(*bounds)
    assert ticks[0] <= bounds[0] + 1e-9 and ticks[-1] >= bounds[1] - 1e-9
    assert 2 <= len(ticks) <= 7
    steps = [after - before for before, after in zip(ticks[:-1], ticks[1:], strict=True)]
    assert steps == pytest.approx([steps[0]] * len(steps)) and steps[0] > 0


@pytest.mark.parametrize("sizes", [(5001, 104832), (90e3, 105e3), (44.0, 44.0), (1.0, 4e9), (0, 10), (3.1e6, 3.4e6)])
def test_size_axis_goes_by_factors_and_has_round_numbers(sizes: tuple[float, float]) -> None:
    axis = size_axis(sizes)
    assert 2 <= len(axis.ticks) <= 8
    assert all(axis.covers(value) for value in (*axis.ticks, max(1.0, sizes[0]), sizes[1]))
    middle = math.sqrt(axis.low * axis.high)
    assert axis.at(middle) == pytest.approx(50) and axis.at(axis.low) == 0 and axis.at(axis.high) == pytest.approx(100)
    assert len(set(size_labels(axis))) == len(axis.ticks)


def test_score_axis_is_even_and_ends_where_it_ends() -> None:
    axis = score_axis([97.15, 98.65])
    assert axis.at((axis.low + axis.high) / 2) == pytest.approx(50)
    assert axis.at(-1e9) == 0 and axis.at(1e9) == 100 and not axis.covers(-1e9)


def test_labels_tell_ticks_apart() -> None:
    assert score_labels(Axis(0, 1, (-0.5, 0.0, 0.5)), "%") == ["−0.5 %", "0.0 %", "0.5 %"]
    assert score_labels(Axis(0, 1, (96.0, 98.0)), "") == ["96", "98"]
    assert score_labels(Axis(0, 1, (0.1, 0.15)), "") == ["0.10", "0.15"]
