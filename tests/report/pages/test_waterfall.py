"""The waterfall: bars that begin where the last ended, with lengths that are factors of size and differences of score."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from cortado.report.pages.axes import Axis
from cortado.report.pages.waterfall import (
    axes_of,
    scale,
    score_change,
    size_change,
    steps_of,
    time_change,
    waterfall_section,
)
from cortado.report.report import Line, Stage


def bars_of(source):
    """(class, left, width) of every bar, in percent."""
    found = re.findall(r'class="move (\w+)" style="left:([\d.]+)%;width:([\d.]+)%"', source)
    return [(kind, float(left), float(width)) for kind, left, width in found]


def test_bars_are_as_long_as_what_changed(report_with):
    report = report_with()
    across, up = axes_of(report)
    assert isinstance(up, Axis) and across.log and not up.log
    bars = bars_of(waterfall_section(report))
    assert [kind for kind, _, _ in bars] == ["gain", "harm", "gain", "gain", "gain", "harm"]
    sizes, scores = bars[0::2], bars[1::2]
    # The second factor is 181 to 27 KB, the first 1066 to 181 KB; all together they are the product.
    assert sizes[1][2] / sizes[0][2] == pytest.approx(
        math.log(181_234 / 27_321) / math.log(1_066_440 / 181_234), abs=0.005
    )
    assert sizes[2][2] == pytest.approx(sizes[0][2] + sizes[1][2], abs=0.03)
    assert scores[1][2] / scores[0][2] == pytest.approx((98.02 - 97.61) / (98.37 - 97.61), abs=0.005)


def test_each_bar_begins_where_the_last_ended(report_with):
    steps = steps_of(report_with())
    assert [step.sizes[0] for step in steps[1:-1]] == [step.sizes[1] for step in steps[:-2]]
    assert [step.scores[0] for step in steps[1:-1]] == [step.scores[1] for step in steps[:-2]]
    assert steps[-1].sizes == (1_066_440, 27_321) and steps[-1].scores == (98.37, 98.02)
    assert [step.seconds for step in steps] == [None, 3.5, 61.0, 64.5]


def test_every_stage_is_reported_in_numbers(report_with):
    source = waterfall_section(report_with())
    for wanted in ("original network", "1 prune/weights", "2 share/kmeans", "5.88× smaller", "6.63× smaller", "39× smaller",
                   "−0.76", "+0.41", "−0.35", "3.5 s", "1 min 1 s", "1 min 4 s"):  # fmt: skip
        assert wanted in source, wanted


def test_limits_stand_in_every_row(report_with):
    assert waterfall_section(report_with()).count("rule limit") == 2 * 4
    assert "rule limit" not in waterfall_section(report_with(lines=()))


def test_lower_is_better_turns_the_harm_round(report_with):
    bars = bars_of(waterfall_section(report_with(higher_is_better=False, lines=())))
    assert [kind for kind, _, _ in bars[1::2]] == ["gain", "harm", "gain"]


def test_layers_of_a_stage_are_named(report_with):
    stages = (Stage("quantize/weights", {"where": "fc1.weight", "bits": 4}, 98.0, 500, 1.0, 1.0),)
    assert "<small>fc1.weight</small>" in waterfall_section(report_with(stages=stages))


def test_scores_that_are_no_numbers_leave_their_lane_empty(report_with):
    stages = (Stage("finetune", {}, float("nan"), 500, 1.0, 1.0),)
    source = waterfall_section(report_with(stages=stages, original_validation=float("nan"), lines=()))
    assert "not a number" in source and len(bars_of(source)) == 2
    source = waterfall_section(report_with(stages=stages, lines=(Line("a", "B", 2, 1, "size <= 1 B", False),)))
    assert len(bars_of(source)) == 2


def test_size_changes_in_words():
    assert size_change(1000, 250) == "4× smaller" and size_change(100, 110) == "1.1× larger"
    assert size_change(5000, 4999) == "same size" and size_change(0, 10) == "unknown"


def test_score_changes_in_words():
    assert score_change(98.5, 98.0, "%") == "−0.50" and score_change(1.3, 1.305, "") == "+0.005"
    assert score_change(1.5, 1.5, "") == "±0.00" and score_change(1.0, float("nan"), "") == "not a number"


def timed_report(report_with, halfway=0.25):
    first, last = report_with().stages
    stages = (replace(first, latency_ms=halfway), replace(last, latency_ms=0.3))
    limit = "latency <= 0.4 ms in onnxruntime"
    line = Line("latency in onnxruntime, batch 1, threads 1", "ms", 0.5, 0.3, limit, True)
    return report_with(stages=stages, lines=(*report_with().lines[:2], line))


def test_time_has_a_lane_where_it_was_taken(report_with):
    """A quarter of a millisecond is half of the original time, and 0.3 is slower again; the scale is logarithmic, like that of sizes."""
    source = waterfall_section(timed_report(report_with))
    assert "latency on a logarithmic scale, in onnxruntime, batch 1" in source and source.count("rule limit") == 3 * 4
    for wanted in ("250 us", "2× faster", "1.2× slower", "1.67× faster", "size on a logarithmic scale"):
        assert wanted in source, wanted
    times = bars_of(source)[2::3]
    assert [kind for kind, _, _ in times] == ["gain", "harm", "gain"]
    assert times[0][2] / times[1][2] == pytest.approx(math.log(2) / math.log(1.2), rel=0.01)
    assert "latency on" not in waterfall_section(report_with())


def test_a_stage_that_could_not_be_timed_has_no_bar(report_with):
    source = waterfall_section(timed_report(report_with, None))
    assert len(bars_of(source)[0::1]) == 6 + 1 and "faster" in source


def test_times_within_the_noise_are_not_told_apart():
    assert time_change(1.0, 1.01) == time_change(1.01, 1.0) == "same time"
    assert time_change(2.0, 1.0) == "2× faster" and time_change(1.0, 1.5) == "1.5× slower"


def test_labels_of_a_scale_never_run_into_one_another() -> None:
    axis = Axis(98.2, 98.8, (98.2, 98.4, 98.6, 98.8))
    shown = re.findall(r"<i style=\"left:([\d.]+)%\">", scale(axis, ["98.2 %", "98.4 %", "98.6 %", "98.8 %"], 5.5))
    places = [float(place) for place in shown]
    assert places[0] == pytest.approx(axis.at(98.2), abs=0.01) and len(places) == 2
    assert min(after - before for before, after in pairwise(places)) >= 6 * 5.5
    assert len(re.findall("<i ", scale(axis, ["1", "2", "3", "4"], 5.5))) == 4
