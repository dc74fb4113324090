"""Clocks on the page and in the terminal: three ratios, what is noisy, and predictions called by their name."""

import json
from dataclasses import replace

import pytest

from cortado.report.pages.clocks import predicted_text, ratio_text
from cortado.report.pages.html import report_html
from cortado.report.pages.terminal import report_text
from cortado.report.record import Edge, Placement
from cortado.report.report import Clock, Exported, Ratio, Time, read_report

FILE = Exported("onnxruntime", "1.31.1", 1_234_567, 97.5, 97.6, 3.2e-7, 0.9987, 9876)
TIMES = (
    Time("original", "torch_eager", 4.0, 3.9, 4.1, Ratio(1, 1, 1), Ratio(1, 1, 1), Ratio(0.5, 0.4, 0.6)),
    Time("compressed", "onnxruntime", 1.0, 0.9, 1.2, Ratio(4.04, 3.9, 4.2), None, Ratio(1.97, 1.9, 2.1)),
)
CLOCK = Clock(32, 2, 77, TIMES, "openvino", "onnxruntime", Ratio(1.01, 0.98, 1.03), False)


@pytest.fixture
def timed(report_with):
    return report_with(exports=(FILE,), clocks=(CLOCK,), multiply_adds=(40.6e6, 20.1e6))


@pytest.mark.parametrize("show", [report_html, report_text])
def test_three_ratios_are_shown_with_what_they_depend_on(timed, show):
    shown = show(timed)
    for wanted in (
        "4.04× (3.90 to 4.20)", "1.97× (1.90 to 2.10)", "unknown", "batch 32, threads 2, 77 rounds", "best float32: openvino",
        "A/A in onnxruntime 1.01×", "quiet", "97.50 %", "97.60 %", "99.87 %", "over torch eager",
    ):  # fmt: skip
        assert wanted in shown, wanted


@pytest.mark.parametrize("show", [report_html, report_text])
def test_noise_is_told(timed, show):
    assert "NOISY" in show(replace(timed, clocks=(replace(CLOCK, noisy=True),)))


@pytest.mark.parametrize("show", [report_html, report_text])
def test_prediction_is_no_speed_up(timed, show):
    shown = show(timed)
    assert "40.6 M to 20.1 M, 2.02 times fewer; not a measurement of time" in shown
    assert "speed-up" not in shown.lower() and "speedup" not in shown.lower()


def test_unknown_prediction_is_unknown(timed):
    assert predicted_text(replace(timed, multiply_adds=(1.0, None))) == "predicted from multiply-adds: unknown"


@pytest.mark.parametrize("show", [report_html, report_text])
def test_nothing_is_said_where_no_runtime_was_asked_for(report_with, show):
    shown = show(report_with())
    assert "over torch eager" not in shown and "multiply-adds" not in shown


def test_unknown_ratio_is_unknown():
    assert ratio_text(None) == "unknown"


@pytest.mark.parametrize("show", [report_html, report_text])
def test_top_1_is_reported_of_classes_alone(timed, show):
    assert "same top-1" in show(timed)
    assert "same top-1" not in show(replace(timed, exports=(replace(FILE, same_top=None),)))


def test_report_with_times_is_read_back(timed, tmp_path):
    (tmp_path / "report.json").write_text(timed.as_json())
    again = read_report(tmp_path / "report.json")
    assert again.clocks == timed.clocks and again.exports == timed.exports
    assert again.multiply_adds == timed.multiply_adds


def test_report_from_before_there_were_times_is_read(timed, tmp_path):
    data = json.loads(timed.as_json())
    for key in ("clocks", "exports", "multiply_adds"):
        del data[key]
    (tmp_path / "report.json").write_text(json.dumps(data))
    assert read_report(tmp_path / "report.json").clocks == ()


@pytest.mark.parametrize("show", [report_html, report_text])
def test_what_is_inside_a_file_is_told(timed, show):
    edges = (Edge("x", "input", "int8", 0.05, -14), Edge("y", "output", "float32"))
    shown = show(replace(timed, exports=(replace(FILE, rounded=True, float_operators=("linear",), edges=edges),)))
    assert "does not report its share of integers; in floats: linear" in shown
    assert "The file has input x: int8, scale 0.05, zero point -14; output y: float32" in shown


@pytest.mark.parametrize("show", [report_html, report_text])
def test_kernels_are_told_with_their_shares_and_the_reasons(timed, show):
    rows = (
        Placement("stem", "int8", 8, 0.25),
        Placement("body", "binary", 1, 0.5),
        Placement("head", "float32", 32, 0.25, "int8: its input is not quantized"),
    )
    shown = show(replace(timed, exports=(replace(FILE, rounded=True, placements=rows),)))
    assert "Multiply-adds by kernel: int8 25.0 %, binary, 1 bit 50.0 %, float32 25.0 %" in shown
    assert "not faster: head in float32 (int8: its input is not quantized)" in shown
    assert "does not report" not in shown
