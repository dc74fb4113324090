"""The report as one self-contained HTML page: no scripts, fonts or images from outside."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from cortado.quantities import size_text
from cortado.report.pages import words
from cortado.report.pages.charts import COLOURS, histogram_chart, stacked
from cortado.report.pages.clocks import clocks_section
from cortado.report.pages.curves import curves_section
from cortado.report.pages.front import front_section
from cortado.report.pages.markup import Markup, join, tag
from cortado.report.pages.roundings import roundings_section
from cortado.report.pages.served import served_text
from cortado.report.pages.shifts import shift_table
from cortado.report.pages.tables import fact_list, layer_table, result_table, stage_table
from cortado.report.pages.totals import deep_compression_bytes, weights_and_rest
from cortado.report.pages.waterfall import waterfall_section
from cortado.report.record import Record

STYLE = Path(__file__).with_name("report.css")
KINDS = {"met": "good", "missed": "bad"}
SIGNS = {"met": "✓", "missed": "✗", words.UNKNOWN: "?", "no limits": "·"}
REFERENCE = "S. Han, H. Mao, W. J. Dally: Deep Compression, ICLR 2016, tables 4 and 5"


def report_html(report: Record, deep_compression: bool = False) -> str:
    """Return the whole page (UTF-8), optionally with Deep Compression's arithmetic."""
    title = f"{report.network} on {report.task}: {words.smaller(report)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(STYLE.read_text(encoding="utf8"))),
    )
    main = tag(
        "main",
        hero(report),
        original_and_compressed(report),
        front_section(report),
        waterfall_section(report),
        section("Where the bytes go", byte_bars(report)),
        clocks_section(report),
        shift_table(report),
        warnings(report),
        section("Stage by stage", stage_table(report)),
        curves_section(report),
        roundings_section(report.rounded),
        section(
            "Layer by layer", layer_table(report, deep_compression), layer_notes(report) if deep_compression else None
        ),
        distributions(report),
        section("How it was made", making(report)),
        footer(),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", main), lang="en") + "\n"


def first_screen_html(report: Record) -> str:
    """Return the first screen as a fragment for a notebook, with scoped style."""
    style = STYLE.read_text(encoding="utf8")
    for outermost in (":root {", "html {", "body {"):
        style = style.replace(outermost, "& {")
    scoped = tag("style", Markup(f".cortado-report {{ padding: 12px; {style} }}"))
    return tag("div", scoped, hero(report), original_and_compressed(report), warnings(report), class_="cortado-report")


def original_and_compressed(report: Record) -> Markup:
    """Return the table of both networks, with a hint on timing if there is none."""
    notes = [text for text in (words.execution_text(report), words.time_hint(report), served_text(report)) if text]
    return section("Original and compressed", result_table(report), *[tag("p", text, class_="note") for text in notes])


def section(title: str, *content: object) -> Markup:
    return tag("section", tag("h2", title), *content)


def hero(report: Record) -> Markup:
    """Return the summary at the top."""
    word, sentence = words.outcome(report)
    sign = tag("span", SIGNS[word], class_="sign", aria_hidden="true")
    gist = tag("span", words.gain(report), class_="gist")
    details = tag("span", f"{sentence} {words.certainty(report)}", class_="details")
    badge = tag("p", sign, tag("strong", word), gist, details, class_=f"badge {KINDS.get(word, 'quiet')}")
    names = tag("h1", report.network, tag("span", f" on {report.task}"))
    return tag("header", tag("p", "cortado · report", class_="brand"), names, badge)


def warnings(report: Record) -> Markup | None:
    """Return the warnings and the notes of stages; None without any."""
    if not report.warnings:
        return None
    found = [(words.counted_text(some, word), some) for word, some in words.remarks(report).items() if some]
    parts = [part for head, some in found for part in (tag("h2", head), tag("ul", *[tag("li", one) for one in some]))]
    return tag("aside", *parts, class_="warnings")


def byte_bars(report: Record) -> Markup:
    """Return the original network and the file, each as a bar split by layer in the same colours."""
    parts = weights_and_rest(report)
    largest = sorted(parts.weights, key=lambda row: -row.size_bytes)[: COLOURS - 1]
    colours = {row.path: f"c{number}" for number, row in enumerate(largest)}
    shown = [row for row in parts.weights if row.path in colours]
    others = [row for row in report.layers if row.path not in colours]
    original = [(row.path, row.original_bits / 8, colours[row.path]) for row in shown]
    small = [(row.path, float(row.size_bytes), colours[row.path]) for row in shown]
    rest_original = sum(row.original_bits for row in others) / 8
    rest_small = float(sum(row.size_bytes for row in others) + parts.head_bytes)
    name = "other"
    original.append((name, rest_original, "c-rest"))
    small.append((name, rest_small, "c-rest"))
    return join(
        byte_bar("original network", original),
        byte_bar("compressed file", small),
        legend(original, small),
    )


def byte_bar(name: str, parts: Sequence[tuple[str, float, str]]) -> Markup:
    whole = sum(amount for _, amount, _ in parts)
    spoken = ", ".join(f"{layer} {size_text(amount)}" for layer, amount, _ in parts)
    title = tag("h3", name, tag("span", f" {size_text(whole)}"))
    return tag("div", title, stacked(parts, f"{name}: {spoken}"), class_="byte-bar")


def legend(original: Sequence[tuple[str, float, str]], small: Sequence[tuple[str, float, str]]) -> Markup:
    """Return colour, layer, bytes before and after, and share of the file for each part."""
    whole = sum(amount for _, amount, _ in small)
    items = []
    for (name, before, kind), (_, after, _) in zip(original, small, strict=True):
        share = words.percent(after / whole) if whole else words.UNKNOWN
        items.append(
            tag(
                "li",
                tag("i", class_=kind),
                tag("b", name),
                tag("span", f"{size_text(before)} → {size_text(after)}, {share} of the file"),
            )
        )
    return tag("ul", *items, class_="legend")


def layer_notes(report: Record) -> Markup:
    """Return notes on the table, and the network's size by the paper's arithmetic."""
    paper_bytes = deep_compression_bytes(report)
    if paper_bytes is None:
        total = "The total by that arithmetic is unknown: some weights are neither shared nor quantized."
    else:
        paper_times = words.times_smaller(report.original_bytes, paper_bytes)
        our_times = words.times_smaller(report.original_bytes, report.size_bytes)
        total = (
            f"By that arithmetic this network takes {size_text(paper_bytes)} ({paper_times} smaller); "
            f"our file, written and read back, takes {size_text(report.size_bytes)} ({our_times})."
        )
    reading = (
        "Bits are means over stored entries: nonzero weights, and filler zeros for gaps too wide for an index. "
        "The P+Q and P+Q+H columns are computed as in the paper, the last two are measured. "
        "A dash means not applicable."
    )
    return tag("p", f"{total} {reading} ", tag("cite", REFERENCE), ".", class_="note")


def distributions(report: Record) -> Markup | None:
    """Return histograms of codes and of index gaps."""
    if not report.pictures:
        return None
    drawn = [histogram_chart(shown, f"mark-{shown.of}") for shown in report.pictures]
    lead = (
        "The more skewed these are, the more an entropy coder saves. Codes number the shared values in ascending order."
    )
    return section("Codes and gaps", tag("p", lead, class_="note"), tag("div", *drawn, class_="pictures"))


def making(report: Record) -> Markup:
    """Return the recipe with every knob, seed and environment."""
    recipe = yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True) if report.recipe else "unknown"
    where = [(name, value or words.UNKNOWN) for name, value in report.environment.items()]
    known = fact_list([("seed", report.seed), *(where or [("environment", words.UNKNOWN)])])
    return tag(
        "div",
        tag("div", tag("h3", "recipe, every knob"), tag("pre", recipe, tabindex=0)),
        tag("div", tag("h3", "seed and environment"), known),
        class_="making",
    )


def footer() -> Markup:
    text = (
        "1 KB is 1,000 bytes. Sizes are bytes of files. Scores are those of the network reloaded from the file: after every "
        "stage on the validation data, at the end on the test data, which are used only once."
    )
    return tag("footer", text)
