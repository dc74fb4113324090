"""The page: whole, self-contained, escaped, and with every number of the report."""

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from cortado.report.candidate import Tried
from cortado.report.pages.html import report_html
from cortado.report.pages.markup import VOID
from cortado.report.report import Clock, Compared, Line, Ratio, Report

Make = Callable[..., Report]
Lines = Callable[..., tuple[Line, ...]]


class Page(HTMLParser):
    """Follows the tags of a page and keeps its visible text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.wrong: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_page_has_balanced_tags(report_with: Make) -> None:
    page = Page(report_html(report_with()))
    assert page.wrong == page.open == []
    assert {"html", "head", "body", "table", "svg", "style"} <= set(page.seen)


def test_page_needs_nothing_from_outside(report_with: Make) -> None:
    source = report_html(report_with())
    page = Page(source)
    assert page.links == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.seen)
    assert "http" not in source and "url(" not in source and "@import" not in source


def test_page_escapes_names(report_with: Make) -> None:
    source = report_html(report_with())
    assert "<script" not in source and "<b>few" not in source
    text = Page(source).text
    assert "Net<script>alert(1)</script>&\"'" in text
    assert "stage 1: <b>few</b> weights are left" in text


def test_page_escapes_every_word_a_user_can_choose(report_with: Make) -> None:
    bad = "<x-bad a='\"'>"
    report = report_with()
    layers = tuple(type(row)(**(vars(row) | {"path": bad + row.path, "form": bad})) for row in report.layers)
    stages = tuple(type(row)(**(vars(row) | {"name": bad, "knobs": {bad: bad}})) for row in report.stages)
    pictures = tuple(type(row)(**(vars(row) | {"title": bad})) for row in report.pictures)
    lines = (Line(bad, bad, 1.0, 2.0, bad, True),)
    made = report_html(
        report_with(
            task=bad,
            network=bad,
            metric_name=bad,
            metric_unit=bad,
            layers=layers,
            stages=stages,
            pictures=pictures,
            lines=lines,
            warnings=(bad,),
            recipe={bad: bad},
            environment={bad: bad},
        )
    )
    page = Page(made)
    assert "x-bad" not in page.seen
    assert page.wrong == page.open == []
    assert page.text.count("<x-bad") >= 15


def test_notebook_fragment_is_the_first_screen_with_its_own_style(report_with: Make) -> None:
    source = report_with()._repr_html_()
    page = Page(source)
    assert page.wrong == page.open == page.links == [] and page.seen[:2] == ["div", "style"]
    assert "39× smaller" in page.text and "size of the file" in page.text and "Stage by stage" not in page.text
    style = source.partition("<style>")[2].partition("</style>")[0]
    assert style.startswith(".cortado-report {") and style.count("{") == style.count("}")
    assert not re.search(r"(:root|html|body) *\{", style)


def test_page_has_the_columns_of_deep_compression_only_when_asked_for(report_with: Make) -> None:
    assert "P+Q" not in report_html(report_with()) and "Han, H. Mao" not in report_html(report_with())


def test_page_shows_every_number(report_with: Make) -> None:
    text = Page(report_html(report_with(), deep_compression=True)).text
    test = [
        "39× smaller as .cortado file, accuracy −0.12 points",
        "−0.31 to +0.07",
        "98.36 %",
        "98.24 %",
        "9,876 samples",
    ]
    falls = ["5.88× smaller", "6.63× smaller", "−0.76", "+0.41", "all together", "−0.35", "1 min 4 s"]
    lines = ["1.07 MB (1,066,440 B)", "27.3 KB (27,321 B)", "size <= 50 KB", "score >= -0.5 %", "500 us"]
    stages = [
        "98.37 %",
        "97.61 %",
        "98.02 %",
        "181 KB",
        "5.88×",
        "9.2 %",
        "3.5 s",
        "1 min 1 s",
        "keep=0.123 by=magnitude",
    ]
    layers = [
        "fc1.weight",
        "300×784",
        "masked(codebook)",
        "235 K",
        "10.0 %",
        "4.12",
        "3.38",
        "4.69 %",
        "3.91 %",
        "321 B",
    ]
    making = ["keep: 0.123", "name: by hand", "seed 41", "python 3.11.7", "processor unknown", "highest bar 1.23 K"]
    for wanted in (*test, *falls, *lines, *stages, *layers, *making):
        assert wanted in text, wanted


def test_page_says_unknown_and_never_nought(report_with: Make) -> None:
    report = report_with(
        lines=(Line("latency", "ms", None, None, "latency <= 1 ms", None),),
        test=Compared(98.0, 98.0, 0.0, None, None, 10),
    )
    source = report_html(report)
    row = re.search(r"<tr><th scope=\"row\">latency.*?</tr>", source)
    assert row is not None
    assert row.group(0).count("unknown</td>") == 2 and "? unknown" in row.group(0)
    assert not re.search(r"\D0 (ms|us|B)\b", row.group(0))
    assert "95 % interval unknown (10 samples are too few)" in source


@pytest.mark.parametrize(
    ("met", "wanted", "kind"),
    [
        ((True, True), "met", "good"),
        ((True, False), "missed", "bad"),
        ((None,), "unknown", "quiet"),
        ((), "no limits", "quiet"),
    ],
)
def test_page_begins_with_the_test_result(
    report_with: Make, limits_with: Lines, met: tuple[bool | None, ...], wanted: str, kind: str
) -> None:
    source = report_html(report_with(lines=limits_with(*met)))
    badge = re.search(r'<p class="badge (\w+)">.*?<strong>(.*?)</strong>', source)
    assert badge is not None
    assert badge.groups() == (kind, wanted)
    assert source.index("badge ") < source.index("<table")


def test_page_leaves_out_what_there_is_not(report_with: Make) -> None:
    source = report_html(report_with(warnings=(), pictures=(), layers=(), recipe={}, environment={}))
    page = Page(source)
    assert page.wrong == page.open == []
    assert "warning" not in page.text and "Codes and gaps" not in page.text
    assert "environment unknown" in page.text


def test_page_of_a_network_with_many_layers_groups_the_small_ones(report_with: Make) -> None:
    first = report_with().layers[0]
    many = tuple(type(first)(**(vars(first) | {"path": f"w{at}", "size_bytes": 400 + at})) for at in range(40))
    legend = re.search(r'<ul class="legend">.*?</ul>', report_html(report_with(layers=many)))
    assert legend is not None
    assert re.findall(r"<b>(.*?)</b>", legend.group(0)) == [*(f"w{at}" for at in range(34, 40)), "other"]


def test_page_is_light_and_dark_and_prints(report_with: Make) -> None:
    source = report_html(report_with())
    assert "prefers-color-scheme: dark" in source and "@media print" in source
    assert source.startswith('<!DOCTYPE html>\n<html lang="en">')


def test_first_screen_has_its_order(report_with: Make) -> None:
    """Test, table, what was tried, stages, bytes, time, warnings; then the details."""
    clock = Clock(1, 1, 9, (), "torch_eager", "torch_eager", Ratio(1, 1, 1), False)
    source = report_html(report_with(front=(Tried("finetune", 300, 97.0, True, True),), clocks=(clock,)))
    parts = [
        'class="badge', "Original and compressed", "What was tried", "What each stage did", "Where the bytes go",
        "Where the time goes", 'class="warnings"', "Stage by stage", "Layer by layer",
    ]  # fmt: skip
    body = source[source.index("<body>") :]
    found = [body.index(part) for part in parts]
    assert found == sorted(found)


def test_page_of_a_given_recipe_has_no_front(report_with: Make) -> None:
    assert "What was tried" not in report_html(report_with())
