"""The report as text: the test result first, columns aligned, nothing lost."""

from collections.abc import Callable
from dataclasses import replace

from cortado.report.pages.terminal import aligned, report_text, stage_block
from cortado.report.report import Line, Report

Make = Callable[..., Report]


def test_aligned_ends_numbers_at_the_right() -> None:
    assert aligned([("name", "bytes"), ("a", "5"), ("longer", "1,234")]) == (
        "name    bytes\n──────  ─────\na           5\nlonger  1,234"
    )


def test_text_begins_with_the_verdict(report_with: Make) -> None:
    lines = report_text(report_with()).splitlines()
    assert lines[0].endswith("on mnist: 39× smaller. MET. Both limits are met.")
    assert lines[2].split() == ["original", "compressed", "limit", "met?"]
    assert " ".join(lines[4].split()) == "size of the file 1.07 MB (1,066,440 B) 27.3 KB (27,321 B) size <= 50 KB yes"


def test_text_holds_every_number(report_with: Make) -> None:
    text = report_text(report_with())
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


def test_text_columns_of_a_table_end_alike(report_with: Make) -> None:
    lines = report_text(report_with()).splitlines()
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


def test_str_of_a_report_says_it_in_one_breath(report_with: Make) -> None:
    said = str(report_with())
    for part in ("on mnist", "1.07 MB -> 27.3 KB", "39.0 times smaller", "98.36 % -> 98.24 %", "-0.31 to +0.07"):
        assert part in said
    assert "\n" not in said


def test_stages_tell_the_time_of_a_call_where_it_was_taken(report_with: Make) -> None:
    first, last = report_with().stages
    line = Line("latency in onnxruntime, batch 1, threads 1", "ms", 0.5, 0.3, "", None)
    lines = (*report_with().lines[:2], line)
    reported = stage_block(report_with(stages=(first, replace(last, latency_ms=0.3)), lines=lines)).splitlines()
    assert "latency" in reported[0] and "500 us" in reported[2] and "300 us" in reported[4] and "us" not in reported[3]
    assert "latency" not in stage_block(report_with())
