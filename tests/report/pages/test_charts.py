"""Charts: lengths and places against the numbers they show."""

import re
from xml.etree import ElementTree

import pytest

from cortado.file.accounting import Histogram
from cortado.report.pages.charts import bar, edge_text, histogram_chart, stacked


def test_bar_is_as_long_as_its_share() -> None:
    assert "width:25.00%" in bar(50, 200, "50 B", "small")
    assert "width:0.30%" in bar(0, 200, "0 B", "small")


def test_stacked_parts_fill_the_bar() -> None:
    drawn = stacked([("a", 300, "c0"), ("b", 100, "c1")], "both")
    assert [float(width) for width in re.findall(r"width:([\d.]+)%", drawn)] == [75, 25]


def test_histogram_bars_are_in_proportion() -> None:
    drawn = histogram_chart(Histogram("t", (-0.5, 0.5, 1.5, 2.5), (10, 40, 0)), "mark-codes")
    heights = [float(node.attrib["height"]) for node in ElementTree.fromstring(drawn).iter("rect")]
    assert heights[0] / heights[1] == pytest.approx(0.25, abs=0.001)
    assert heights[2] == 0


def test_edges_are_named_by_the_whole_numbers_they_hold() -> None:
    assert edge_text(-0.5, 0.5) == "0"
    assert edge_text(0.5, 3.5) == "1 to 3"
    assert edge_text(0.25, 0.5) == "0.25 to 0.5"
