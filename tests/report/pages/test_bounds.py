"""Bounds: limits as values of the axes: those that count from the original score start at its score on the validation data."""

import pytest

from cortado.report.pages.bounds import score_bound, size_bound
from cortado.report.report import Line


@pytest.mark.parametrize(
    ("limit", "higher", "wanted"),
    [("score >= -0.5 %", True, 97.87), ("score >= -0.5 %", False, 98.87), ("score >= 97 %", True, 97.0), ("score >= 97", False, 97.0)],
)  # fmt: skip
def test_score_bound_is_where_the_limit_is(report_with, limit, higher, wanted):
    report = report_with(lines=(Line("accuracy", "%", 98.36, 98.24, limit, True),), higher_is_better=higher)
    assert score_bound(report).value == pytest.approx(wanted) and score_bound(report).text == limit


def test_size_bound_is_in_bytes(report_with):
    assert size_bound(report_with()).value == 50_000


def test_no_limit_or_an_unreadable_one_has_no_place(report_with):
    report = report_with(lines=(Line("size", "B", 2, 1, "beauty >= 3", True), Line("accuracy", "%", 1.0, 1.0)))
    assert size_bound(report) is None and score_bound(report) is None
