"""Activations on their grids: lengths and places against the numbers, words, escaping."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from cortado.network.compare.rounded import Fill, Rounded, RoundedLayer
from cortado.report.pages.html import report_html
from cortado.report.pages.roundings import (
    LEFT,
    RIGHT,
    WIDE,
    cut_text,
    error_text,
    fill_picture,
    pieces,
    roundings_section,
)
from cortado.report.report import Report, read_report
from tests.report.pages.test_html import Page

Make = Callable[..., Report]


def filled(**changes: Any) -> Fill:
    known = {"side": "input", "bits": 2, "low": -1.0, "first": 0.5, "last": 2.0, "high": 4.5, "grid": (-1.0, 3.0)}
    return Fill(**(known | {"cut": 0.02} | changes))


def made(*layers: RoundedLayer) -> Rounded:
    return Rounded(layers, 32, 0.0521)


LAYERS = (
    RoundedLayer("conv1", "Conv2d", 4, (filled(),), 0.1, 0.1),
    RoundedLayer("block", "Block", None, (filled(), filled(side="output", bits=8, cut=0.0)), 0.2, 0.25),
    RoundedLayer("fc", "Linear", 1, (), None, 0.0521),
)


def lines_of(drawn: str, kind: str) -> list[tuple[float, float]]:
    return [
        (float(node.attrib["x1"]), float(node.attrib["x2"]))
        for node in ElementTree.fromstring(drawn).iter("line")
        if node.attrib["class"] == kind
    ]


def test_activation_lies_beside_its_grid_in_proportion() -> None:
    drawn = fill_picture(filled())
    across = (RIGHT - LEFT) / 4.0
    # The grid's four levels: -1 and 3 are the borders of the band, 1/3 and 5/3 are lines.
    assert [at for at, _ in lines_of(drawn, "level")] == pytest.approx(
        [LEFT + across * 4 / 3, LEFT + across * 8 / 3], abs=0.06
    )
    # A step is 4/3; half of it beyond the grid values are rounded as others are, farther out they are clipped.
    bound = RIGHT + across * 2 / 3
    assert lines_of(drawn, "reach") == [pytest.approx((LEFT, bound), abs=0.06)]
    assert lines_of(drawn, "reach off") == [pytest.approx((bound, RIGHT + 1.5 * across), abs=0.06)]
    assert lines_of(drawn, "zero")[0][0] == pytest.approx(LEFT + across, abs=0.06)
    (box,) = [node.attrib for node in ElementTree.fromstring(drawn).iter("rect") if node.attrib["class"] == "most"]
    assert float(box["x"]) == pytest.approx(LEFT + 1.5 * across, abs=0.06)
    assert float(box["width"]) == pytest.approx(1.5 * across, abs=0.06)
    assert "arrow" not in drawn and "level" not in fill_picture(filled(bits=8))


def test_what_reaches_far_beyond_ends_at_the_border_with_an_arrow() -> None:
    drawn = fill_picture(filled(low=-1e30, high=1e30))
    assert drawn.count('class="arrow"') == 2
    half = (RIGHT - LEFT) / 6
    ends = (1.0, LEFT - half), (RIGHT + half, WIDE - 1.0)
    assert lines_of(drawn, "reach off") == [pytest.approx(pair, abs=0.06) for pair in ends]


def test_grid_that_moves_or_is_a_point_is_not_drawn() -> None:
    for grid in (None, (0.0, 0.0)):
        assert "no fixed grid" in fill_picture(filled(grid=grid, cut=None)) and "track-mark" not in fill_picture(
            filled(grid=grid)
        )


def test_pieces_part_at_the_ends_of_the_grid() -> None:
    assert pieces(-2, 5, (0, 4)) == [(-2, 0, "off"), (0, 4, ""), (4, 5, "off")]
    assert pieces(1, 2, (0, 4)) == [(1, 2, "")]
    assert pieces(5, 6, (0, 4)) == [(5, 6, "off")]
    assert pieces(-3, -2, (0, 4)) == [(-3, -2, "off")]


@pytest.mark.parametrize(("cut", "words"), [(None, "unknown"), (0.0, "none"), (5e-5, "< 0.01 %"), (0.034, "3.4 %")])
def test_share_that_is_clipped_in_words(cut: float | None, words: str) -> None:
    assert cut_text(cut) == words


@pytest.mark.parametrize(
    ("error", "words"), [(None, "unknown"), (0.0, "0 %"), (0.00512, "0.51 %"), (0.00999, "1.0 %"), (1.5, "150.0 %")]
)
def test_error_in_words(error: float | None, words: str) -> None:
    assert error_text(error) == words


def test_section_tells_worst_layers_clipping_and_every_number(report_with: Make) -> None:
    page = Page(report_html(report_with(rounded=made(*LAYERS))))
    assert page.wrong == page.open == []
    for wanted in (
        "The outputs differ by 5.2 % from those of the original network.",
        "Most is added at block (20.0 %), conv1 (10.0 %).",
        "2 of 3 grids clip 1 % of the values or more.",
        "On 32 samples of the validation data",
        "Conv2d, weight 4 bits",
        "Linear, weight 1 bit",
        "−1 to 4.5",
        "98 %: 0.5 to 2",
        "−1 to 3",
        "input, 2 bits",
        "output, 8 bits",
        "25.0 %",
    ):
        assert wanted in page.text, wanted


def test_bars_are_as_long_as_the_errors() -> None:
    drawn = str(roundings_section(made(*LAYERS)))
    assert [f"width:{share}%" in drawn for share in ("40.00", "80.00", "100.00", "20.84")] == [True] * 4


def test_network_of_rounded_weights_has_errors_and_no_grids() -> None:
    text = Page(str(roundings_section(made(RoundedLayer("", "Net", 3, (), 0.1, 0.2))))).text
    assert "the network" in text and "10.0 %" in text and "grid" not in text


def test_nothing_rounded_is_no_section(report_with: Make) -> None:
    assert roundings_section(None) is None
    assert "What rounding does" not in report_html(report_with())


def test_names_are_escaped(report_with: Make) -> None:
    bad = "<x-bad a='\"'>"
    layer = RoundedLayer(bad, bad, 2, (filled(side=bad),), 0.5, 0.5)
    page = Page(report_html(report_with(rounded=made(layer))))
    assert "x-bad" not in page.seen and page.wrong == page.open == [] and page.text.count("<x-bad") >= 3


def test_report_with_roundings_comes_back_from_json(report_with: Make, tmp_path: Any) -> None:
    moving = RoundedLayer("fc", "Linear", None, (filled(grid=None, cut=None),), None, None)
    for rounded in (None, made(*LAYERS, moving)):
        (tmp_path / "report.json").write_text(report_with(rounded=rounded).as_json())
        assert read_report(tmp_path / "report.json").rounded == rounded
