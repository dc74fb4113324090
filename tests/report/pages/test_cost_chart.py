"""Cost chart: each point is where its cost and score belong, each line has its name, and a picture stands alone."""

import re
from xml.etree import ElementTree

import pytest

from cortado.report.pages.cost_chart import CostLine, cost_chart, picture

LINES = (
    CostLine("budgets <b>", ((0.1, 70.0), (0.2, 80.0), (0.4, 85.0))),
    CostLine("fixed", ((0.1, 60.0), (0.4, 85.0)), joined=False),
)


@pytest.fixture
def drawn():
    return ElementTree.fromstring(picture(cost_chart(LINES, "ms a picture", "accuracy, %")))


def places(drawn, name):
    """Where the points of a line are, by the titles that they show."""
    space = "{http://www.w3.org/2000/svg}"
    titled = [one for one in drawn.iter(f"{space}circle") if one.find(f"{space}title") is not None]
    return [
        (float(one.get("cx")), float(one.get("cy")))
        for one in titled
        if one.find(f"{space}title").text.startswith(name)
    ]


def test_points_are_spaced_by_factors_of_cost_and_by_score(drawn):
    (x1, y1), (x2, y2), (x3, y3) = places(drawn, "budgets <b>")
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)
    assert (y1 - y2) == pytest.approx(2 * (y2 - y3), abs=0.2)
    assert places(drawn, "fixed")[1] == (x3, y3) and places(drawn, "fixed")[0][0] == x1


def test_lines_are_named_and_only_joined_ones_have_a_stroke():
    chart = cost_chart(LINES, "ms a picture", "accuracy, %")
    assert "budgets &lt;b&gt;" in chart and "ms a picture" in chart and "accuracy, %" in chart
    assert len(re.findall("<polyline", chart)) == 2  # the line and its mark in the legend


def test_single_point_has_a_scale():
    assert "<circle" in cost_chart([CostLine("one", ((5.0, 1.0),))], "bytes", "score")
