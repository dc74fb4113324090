"""Curves: a chart for each term of each stage that trained, with every value; nothing where nothing trained."""

import dataclasses
import re

import pytest

from cortado.report.pages.curves import HEIGHT, TOP, WIDTH, curve_chart, curves_section


def points(chart: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)]


@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0], [0.5], [2.0, 2.0], [-4.0, 0.0, 4.0, 8.0]])
def test_points_are_at_their_epochs_and_higher_for_more(values):
    chart = curve_chart("task", values)
    found = points(chart)
    assert len(found) == len(values) and all(0 < x < WIDTH and TOP <= y <= TOP + HEIGHT for x, y in found)
    assert [x for x, _ in found] == sorted(x for x, _ in found)
    by_height = sorted(range(len(values)), key=lambda at: -found[at][1])
    assert [values[at] for at in by_height] == sorted(values)
    assert all(f"epoch {at}: {value:.4g}" in chart for at, value in enumerate(values, 1))


def test_page_has_a_chart_for_each_term_of_stages_that_trained(report_with):
    report = report_with()
    assert curves_section(report) is None
    first, *others = report.stages
    curved = dataclasses.replace(first, curves={"task": [2.0, 1.0], "logits <b>": [0.3, 0.1]})
    shown = curves_section(dataclasses.replace(report, stages=(curved, *others)))
    assert shown.count("<figure>") == 2 and "task: 2 to 1" in shown and "logits &lt;b&gt;" in shown
