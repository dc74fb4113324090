"""Words: numbers with their units, and verdicts in words."""

from collections.abc import Callable

import pytest

from cortado.report.pages import words
from cortado.report.report import Compared, Line, Report

Make = Callable[..., Report]
Lines = Callable[..., tuple[Line, ...]]


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (None, "B", "unknown"),
        (None, "%", "unknown"),
        (0.0, "%", "0.00 %"),
        (0, "B", "0 B"),
        (999, "B", "999 B"),
        (44_119, "B", "44.1 KB (44,119 B)"),
        (99.136, "%", "99.14 %"),
        (0.82, "ms", "820 us"),
        (61_000, "ms", "1 min 1 s"),
        (-1.5, "nats", "−1.5 nats"),
        (1_234_567, "images", "1,234,567 images"),
        (0.25, "", "0.25"),
        (float("nan"), "%", "not a number"),
        (float("inf"), "", "not a number"),
    ],
)
def test_quantity_has_its_unit(value: float | None, unit: str, wanted: str) -> None:
    assert words.quantity(value, unit) == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0.061, "+0.06"), (-0.061, "−0.06"), (0.001, "±0.00"), (-0.004, "±0.00"), (float("nan"), "not a number")],
)
def test_signed_always_has_a_sign(value: float, wanted: str) -> None:
    assert words.signed_text(value) == wanted


def test_percent_and_bits_show_a_dash_for_nothing() -> None:
    assert words.percent(None) == words.bits(None) == "–"
    assert words.percent(0.0843) == "8.4 %"
    assert words.percent(0.0) == "0.0 %"
    assert (words.bits(5.0), words.bits(3.999)) == ("5", "4.00")


def test_times_smaller_is_unknown_without_sizes() -> None:
    assert words.times_smaller(1_720_000, 44_000) == "39.1×"
    assert words.times_smaller(100, 0) == words.times_smaller(0, 100) == "unknown"


@pytest.mark.parametrize(
    ("met", "word", "sentence"),
    [
        ((True,), "met", "The limit is met."),
        ((True, True), "met", "Both limits are met."),
        ((True, True, True), "met", "All 3 limits are met."),
        ((True, False), "missed", "1 of 2 limits missed: thing 1."),
        ((None, False), "missed", "1 of 2 limits missed: thing 1."),
        ((True, None), "unknown", "Not measured: thing 1."),
        ((), "no limits", "No limits were set."),
    ],
)
def test_outcome_says_what_was_kept(
    report_with: Make, limits_with: Lines, met: tuple[bool | None, ...], word: str, sentence: str
) -> None:
    assert words.outcome(report_with(lines=limits_with(*met))) == (word, sentence)


def test_met_text_is_a_dash_without_limit() -> None:
    assert [words.met_text(met, "size <= 1 B") for met in (True, False, None)] == ["yes", "no", "unknown"]
    assert words.met_text(None, "") == "–"


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "wanted"),
    [
        (-0.3, 0.1, True, "no significant difference"),
        (-0.3, -0.1, True, "significantly worse"),
        (0.1, 0.3, True, "significantly better"),
        (0.1, 0.3, False, "significantly worse"),
        (-0.3, -0.1, False, "significantly better"),
        (None, None, True, "whether the accuracy changed is unknown"),
    ],
)
def test_meaning_follows_the_interval_and_the_direction(
    report_with: Make, low: float | None, high: float | None, higher_is_better: bool, wanted: str
) -> None:
    report = report_with(test=Compared(1.0, 1.0, 0.0, low, high, 100), higher_is_better=higher_is_better)
    assert words.meaning(report) == wanted


def test_interval_is_unknown_with_few_samples() -> None:
    assert words.interval(Compared(1, 1, 0, None, None, 12)) == "95 % interval unknown (12 samples are too few)"
    assert words.interval(Compared(1, 1, 0, -0.25, 0.5, 100)) == "95 % interval −0.25 to +0.50"


def test_knobs_are_written_as_in_a_recipe() -> None:
    knobs = {"keep": 0.3, "across": False, "of": None, "rounds": [1, (2, "x")], "inner": {"a": True}}
    assert words.knobs_text(knobs) == "keep=0.3 across=false of=none rounds=[1, [2, x]] inner={a=true}"


def test_points_are_differences_of_percentages() -> None:
    assert words.points("%") == "points"
    assert words.points("dB") == "dB"
