"""Charts: lengths and places against the numbers they show."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from cortado.file.accounting import Picture
from cortado.pages.charts import bar, edge_text, histogram, nice_ticks, score_chart, stacked
from cortado.report import Report, Stage

Make = Callable[..., Report]


@pytest.mark.parametrize(
    "bounds", [(98.02, 99.23), (0.0, 1.0), (12.3, 12.3), (-5.0, 1e6), (99.999, 100.0), (0.0, 0.0), (-3, -3)]
)
def test_nice_ticks_cover_the_range_evenly(bounds: tuple[float, float]) -> None:
    ticks = nice_ticks(*bounds)
    assert ticks[0] <= bounds[0] + 1e-9 and ticks[-1] >= bounds[1] - 1e-9
    assert 2 <= len(ticks) <= 7
    steps = [after - before for before, after in zip(ticks[:-1], ticks[1:], strict=True)]
    assert steps == pytest.approx([steps[0]] * len(steps)) and steps[0] > 0


def test_bar_is_as_long_as_its_share() -> None:
    assert "width:25.00%" in bar(50, 200, "50 B", "small")
    assert "width:0.30%" in bar(0, 200, "0 B", "small")


def test_stacked_parts_fill_the_bar() -> None:
    drawn = stacked([("a", 300, "c0"), ("b", 100, "c1")], "both")
    assert [float(width) for width in re.findall(r"width:([\d.]+)%", drawn)] == [75, 25]


def test_score_chart_places_scores_in_order(report_with: Make) -> None:
    report = report_with()
    root = ElementTree.fromstring(score_chart(report))
    circles = list(root.iter("circle"))
    heights = [float(circle.attrib["cy"]) for circle in circles]
    scores = [98.37, 97.61, 98.02]
    assert sorted(range(3), key=lambda at: heights[at]) == sorted(range(3), key=lambda at: -scores[at])
    # Pixels between two points are in proportion to the scores between them.
    found = (heights[1] - heights[0]) / (heights[2] - heights[0])
    assert found == pytest.approx((97.61 - 98.37) / (98.02 - 98.37), abs=0.01)
    written = {node.text for node in root.iter("text")}
    assert {"98.37 %", "97.61 %", "98.02 %", "1.07 MB", "181 KB", "27.3 KB", "plain", "1", "2"} <= written


def test_score_chart_leaves_out_a_score_that_is_no_number(report_with: Make) -> None:
    stages = (Stage("a", {}, float("nan"), 100, 1.0, 1.0), Stage("b", {}, 98.0, 90, 1.0, 1.0))
    root = ElementTree.fromstring(score_chart(report_with(stages=stages)))
    assert len(list(root.iter("circle"))) == 2
    nothing = report_with(plain_choice=float("nan"), stages=stages[:1])
    assert "unknown" in score_chart(nothing)


def test_histogram_bars_are_in_proportion() -> None:
    drawn = histogram(Picture("t", (-0.5, 0.5, 1.5, 2.5), (10, 40, 0)), "mark-codes")
    heights = [float(node.attrib["height"]) for node in ElementTree.fromstring(drawn).iter("rect")]
    assert heights[0] / heights[1] == pytest.approx(0.25, abs=0.001)
    assert heights[2] == 0


def test_edges_are_named_by_the_whole_numbers_they_hold() -> None:
    assert edge_text(-0.5, 0.5) == "0"
    assert edge_text(0.5, 3.5) == "1 to 3"
    assert edge_text(0.25, 0.5) == "0.25 to 0.5"
