"""The front: marks at their sizes and scores, the step line along the best, a table and a text with the same rows."""

import re

import pytest

from cortado.report.candidate import Tried
from cortado.report.pages.candidates import candidate_rows, facts_of, gist
from cortado.report.pages.front import front_axes, front_chart, front_section
from cortado.report.pages.html import report_html
from cortado.report.pages.terminal import report_text
from cortado.report.report import Line

FRONT = (
    Tried("prune/weights keep=0.5 | prune/weights keep=0.1 | finetune epochs=2.5", 27_321, 98.02, True, True, 2.5),
    Tried("share/kmeans bits=1", 9_000, 97.0, False),
    Tried("share/kmeans bits=2", 60_000, 97.9, False),
    Tried("share/kmeans bits=8 | finetune epochs=1", 200_000, 98.3, False, False, 1.0, 0.75),
)
LIMITS = (
    Line("size of the file", "B", 1_066_440, 27_321, "size <= 50 KB", True),
    Line("accuracy", "%", 98.36, 98.24, "score >= -0.5 %", True),
)


@pytest.fixture
def report(report_with):
    return report_with(front=FRONT, lines=LIMITS)


def marks_of(source):
    """(class, left, top) of every mark, in percent."""
    found = re.findall(r'class="mark ([a-z ]+)" style="left:([\d.]+)%;top:([\d.]+)%"', source)
    return [(kind, float(left), float(top)) for kind, left, top in found]


def test_marks_lie_at_their_sizes_and_scores(report):
    across, up = front_axes(report)
    marks = marks_of(front_chart(report))
    assert [kind for kind, _, _ in marks] == ["original", "missed", "kept taken", "missed", "missed"]
    rows = [(report.original_bytes, report.original_validation), *sorted((one.size_bytes, one.score) for one in FRONT)]
    for (_, left, top), (size, score) in zip(marks, rows, strict=True):
        assert left == pytest.approx(across.at(size), abs=0.01) and top == pytest.approx(100 - up.at(score), abs=0.01)


def test_times_lie_across_where_they_were_what_counted(report_with):
    """Every candidate timed, and the original network: bytes would put the marks in another order."""
    front = [
        Tried("prune/blocks keep=0.67", 90_000, 97.9, True, True, 2.0, 0.75),
        Tried("quantize/activations", 30_000, 98.0, True, False, 0.0, 1.07),
    ]
    lines = (*LIMITS[:1], Line("latency in onnxruntime, batch 1, threads 1", "ms", 2.3, 0.75, "latency <= 1 ms", True))
    report = report_with(front=tuple(front), lines=lines)
    across, up = front_axes(report)
    source = front_section(report)
    assert "Latency in onnxruntime and accuracy" in source and "latency &lt;= 1 ms" in source and "750 us" in source
    marks = {kind: left for kind, left, _ in marks_of(source)}
    assert marks["kept taken"] < marks["kept"] < marks["original"]
    assert marks["kept"] == pytest.approx(across.at(1070), abs=0.01)


def test_step_line_goes_along_the_best_and_never_up_to_the_left(report):
    across, up = front_axes(report)
    drawn = re.findall(
        r'<line x1="([\d.]+)%" y1="([\d.]+)%" x2="([\d.]+)%" y2="([\d.]+)%" class="step">', front_chart(report)
    )
    lines = [[float(value) for value in one] for one in drawn]
    best = [(9_000, 97.0), (27_321, 98.02), (200_000, 98.3), (1_066_440, 98.37)]
    corners = [(across.at(size), 100 - up.at(score)) for size, score in best]
    assert len(lines) == 6 and lines[0][:2] == pytest.approx(corners[0], abs=0.01)
    assert [line[2:] for line in lines[1::2]] == [pytest.approx(one, abs=0.01) for one in corners[1:]]
    assert all(line[0] <= line[2] + 1e-9 and line[1] >= line[3] - 1e-9 for line in lines)


@pytest.mark.parametrize(("higher", "bad", "kind"), [(True, 10.0, "H10.5 L0,10.5"), (False, 900.0, "H10.5 L0,-10.5")])
def test_a_score_far_away_does_not_squeeze_the_others(report_with, higher, bad, kind):
    original = 98.37
    near = Tried("finetune", 27_321, original - 0.3 if higher else original + 0.3, True, True)
    report = report_with(front=(near, Tried("finetune", 5_000, bad, False)), lines=LIMITS, higher_is_better=higher)
    _, up = front_axes(report)
    assert up.covers(original) and up.covers(near.score) and not up.covers(bad) and up.high - up.low < 5
    source = front_chart(report)
    assert kind in source and "beyond the axis" in front_section(report)
    assert all(0 <= left <= 100 and 0 <= top <= 100 for _, left, top in marks_of(source))


def test_limits_are_drawn_with_their_words(report):
    source = front_chart(report)
    assert source.count('class="bound"') == 2 and "size &lt;= 50 KB" in source and "score &gt;= -0.5 %" in source
    assert 'class="allowed"' in source


def test_words_of_limits_stand_on_the_bad_side(report_with):
    worse = Tried("finetune", 27_000, 101.0, False)
    source = front_chart(report_with(front=(*FRONT, worse), lines=LIMITS, higher_is_better=False))
    assert 'class="bound-name high"' in source and re.search(r'class="bound-name far" style="bottom:', source)


def test_each_mark_says_all_of_its_candidate(report):
    source = front_section(report)
    for number, one in ((2, FRONT[0]), (4, FRONT[3])):
        reported = facts_of(report, number, one)
        assert 'aria-label="' + ". ".join(reported) + '"' in source and source.count(reported[1]) == 2
    assert facts_of(report, 2, FRONT[0]) == (
        "2: met its limits, taken", "27.3 KB (27,321 B), 39× smaller", "accuracy 98.02 %, −0.35 points",
        "2 × prune/weights, finetune; trained 2.5 epochs",
    )  # fmt: skip
    assert "latency 750 us" in facts_of(report, 4, FRONT[3])


def test_table_and_text_have_all_rows_smallest_first(report):
    rows = candidate_rows(report)
    assert [row[2] for row in rows[1:]] == ["9 KB", "27.3 KB", "60 KB", "200 KB"]
    assert [row[5] for row in rows[1:]] == ["unknown", "unknown", "unknown", "750 us"]
    assert [row[-1] for row in rows[1:]] == ["", "<- taken", "", ""]
    text = report_text(report)
    assert "<- taken" in text and text.index("9 KB") < text.index("27.3 KB  ") and "2 × prune/weights, finetune" in text
    source = front_section(report)
    assert source.count("<tr") == 5 and FRONT[0].recipe in source


def test_nothing_is_said_of_a_front_that_is_not_there(report_with):
    assert front_section(report_with()) is None and candidate_rows(report_with()) == []
    assert "<- taken" not in report_text(report_with())


def test_front_of_unknown_scores_is_a_table_alone(report_with):
    report = report_with(front=(Tried("finetune", 500, float("nan"), False, True),), lines=())
    source = front_section(report)
    assert 'class="plot"' not in source and "not a number" in source and "What was tried" in report_html(report)


def test_front_escapes_recipes(report_with):
    source = report_html(report_with(front=(Tried("<x-bad> a=1", 500, 97.0, True, True),)))
    assert "<x-bad" not in source and "&lt;x-bad&gt;" in source


def test_gist_counts_methods():
    assert gist("a x=1 | b | a | a") == "3 × a, b" and gist("") == "unknown"
