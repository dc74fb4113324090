"""Deadlines: what a time limit allows, and how much of it is over."""

import math

import pytest

from cortado.errors import BadValue
from cortado.planner.sensitivity.deadline import Deadline, seconds_of


def test_seconds_are_read_from_words_and_numbers():
    assert [seconds_of(text, "plan") for text in ("2 min", "500 ms", 1.5, None)] == [120, 0.5, 1.5, math.inf]


@pytest.mark.parametrize("time_limit", ["0 s", "-1 min", 0, -2.0, math.nan])
def test_limit_that_allows_nothing_is_refused(time_limit):
    with pytest.raises(
        BadValue,
        match=f"^plan: a time limit of {time_limit} allows nothing. Write, for example, --time-limit '5 min'.$",
    ):
        seconds_of(time_limit, "plan")


@pytest.mark.parametrize("time_limit", ["soon", "5 kg", "5"])
def test_limit_without_a_unit_of_time_is_refused(time_limit):
    with pytest.raises(BadValue, match="units: "):
        seconds_of(time_limit, "plan")


def test_shares_of_the_time_are_over_one_after_another():
    deadline = Deadline(10.0)
    deadline.start -= 5.0
    assert deadline.over(0.4) and not deadline.over(0.6) and not deadline.over() and 5 <= deadline.spent < 6
    assert not Deadline().over(0.01), "without a limit no share of it is ever over"
