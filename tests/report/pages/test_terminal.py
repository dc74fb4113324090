"""The report as text: the test result first, columns aligned, nothing lost."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cortado.report.pages.html import first_screen_html, report_html
from cortado.report.pages.terminal import report_text, stage_block
from cortado.report.record import Exported, Line, notes_of
from cortado.report.report import Report

Make = Callable[..., Report]


def test_text_begins_with_the_test_result(report_with: Make) -> None:
    lines = report_text(report_with()).splitlines()
    assert lines[0].endswith("on mnist: 39× smaller as .cortado file. MET. Both limits are met.")
    assert lines[2].split() == ["original", "compressed", "limit", "met?"]
    assert " ".join(lines[4].split()) == "size of the file 1.07 MB (1,066,440 B) 27.3 KB (27,321 B) size <= 50 KB yes"


def test_text_holds_every_number(report_with: Make) -> None:
    text = report_text(report_with(), deep_compression=True)
    for wanted in (
        "−0.12 points on 9,876 test samples",
        "−0.31 to +0.07",
        "98.37 %",
        "97.61 %",
        "181 KB",
        "27.3 KB",
        "9.2 %",
        "3.5 s",
        "fc1.weight",
        "masked(codebook)",
        "235 K",
        "10.0 %",
        "4.12",
        "3.38",
        "4.69 %",
        "3.91 %",
        "1,203 B",
        "Seed 41",
        "warning: stage 1: <b>few</b> weights are left",
        "unknown",
    ):
        assert wanted in text, wanted


def test_notes_of_stages_are_no_warnings(report_with: Make) -> None:
    first = replace(report_with().stages[0], notes=("it drew 3 peers",))
    stages = (first, *report_with().stages[1:])
    made = report_with(stages=stages, warnings=(*notes_of(stages), "the test data overlap"))
    text, page = report_text(made), report_html(made)
    assert f"warning: the test data overlap\nnote: stage 1 ({first.title}): it drew 3 peers" in text
    assert "1\u00a0warning and 1\u00a0note below" in page and "<h2>1 warning</h2>" in page and "<h2>1 note</h2>" in page


def test_columns_of_deep_compression_are_there_only_when_asked_for(report_with: Make) -> None:
    shown = report_text(report_with())
    assert not [word for word in ("P+Q", "+H", "4.12", "Huffman") if word in shown]
    layer = next(line for line in shown.splitlines() if line.startswith("fc1.weight"))
    assert layer.split() == ["fc1.weight", "masked(codebook)", "235", "K", "10.0", "%", "321", "B", "0.03", "%"]


@pytest.mark.parametrize("deep_compression", [False, True])
def test_text_columns_of_a_table_end_alike(report_with: Make, deep_compression: bool) -> None:
    lines = report_text(report_with(), deep_compression).splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("layer"))
    table = lines[start : start + 6]
    assert len({len(line) for line in table}) == 1


def test_text_of_a_report_without_layers_leaves_the_table_out(report_with: Make) -> None:
    assert "form" not in report_text(report_with(layers=()))


def test_text_says_missed_and_unknown(report_with: Make) -> None:
    lines = (Line("size", "B", 10, 9, "size <= 5 B", False), Line("latency", "ms", None, None, "latency <= 1 ms", None))
    text = report_text(report_with(lines=lines))
    assert "MISSED. 1 of 2 limits missed: size." in text
    row = next(line for line in text.splitlines() if line.startswith("latency"))
    assert row.split() == ["latency", "unknown", "unknown", "latency", "<=", "1", "ms", "unknown"]


def test_print_of_a_report_is_its_first_screen(report_with: Make) -> None:
    report = report_with()
    assert report_text(report).startswith(str(report) + "\n\n")
    assert "size of the file" in str(report) and "prune/weights" not in str(report)


def test_repr_of_a_report_is_one_short_line(report_with: Make) -> None:
    assert repr(report_with(network="Net")) == (
        "<Report: Net on mnist, 1.07 MB -> 27.3 KB, accuracy 98.36 % -> 98.24 %, met>"
    )


def test_first_screen_has_the_file_of_each_runtime(report_with: Make) -> None:
    known = Exported("onnxruntime", "1.23", 315_799, 98.0, 98.0, 1e-7, 1.0, 100, original_bytes=1_084_544)
    unknown = Exported("litert", "2.0", 313_688, 98.0, 98.0, 1e-7, 1.0, 100)
    lines = str(report_with(exports=(known, unknown))).splitlines()
    assert "39× smaller as .cortado file, 3.43× as onnxruntime file. MET" in lines[0]
    rows = [" ".join(line.split()) for line in lines[5:7]]
    assert rows == [
        "file for onnxruntime 1.08 MB (1,084,544 B) 316 KB (315,799 B) – –",
        "file for litert unknown 314 KB (313,688 B) – –",
    ]


def test_time_that_was_not_measured_says_how_to(report_with: Make) -> None:
    hint = "time: not measured, add --measure-in onnxruntime"
    size = report_with().lines[:1]
    for show in (str, report_html, first_screen_html):
        assert hint in show(report_with(lines=size))
        assert hint not in show(report_with(lines=(*size, Line("latency in openvino", "ms", 0.5, 0.3))))


def test_stages_tell_the_time_of_a_call_where_it_was_taken(report_with: Make) -> None:
    first, last = report_with().stages
    line = Line("latency in onnxruntime, batch 1, threads 1", "ms", 0.5, 0.3, "", None)
    lines = (*report_with().lines[:2], line)
    reported = stage_block(report_with(stages=(first, replace(last, latency_ms=0.3)), lines=lines)).splitlines()
    assert "latency" in reported[0] and "500 us" in reported[2] and "300 us" in reported[4] and "us" not in reported[3]
    assert "latency" not in stage_block(report_with())
