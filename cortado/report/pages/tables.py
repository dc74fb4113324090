"""Tables: the rows of a report as HTML, every number with its unit."""

from collections.abc import Sequence

from cortado.file.accounting import LayerRow
from cortado.quantities import count_text, size_text, time_text
from cortado.report.pages import words
from cortado.report.pages.markup import Markup, join, tag
from cortado.report.pages.totals import split, total_row
from cortado.report.report import Line, Report, Stage

MARKS = {"yes": "✓ ", "no": "✗ ", "unknown": "? ", words.NOTHING: ""}


def table(heads: Sequence[object], rows: Sequence[object], kind: str, caption: str) -> Markup:
    """A table under its caption; it scrolls sideways in a narrow window."""
    made = tag("table", tag("thead", *heads), tag("tbody", *rows), class_=kind, aria_label=caption)
    return join(tag("p", caption, class_="note"), tag("div", made, class_="scroll", tabindex=0))


def head_row(*names: str) -> Markup:
    """Column heads; the first one names the rows."""
    return tag("tr", tag("th", names[0], scope="col"), *[right_head(name) for name in names[1:]])


def right_head(name: str) -> Markup:
    """The head of a column of numbers."""
    return tag("th", name, scope="col", class_="number")


def number(value: object, hint: str | None = None, label: str | None = None) -> Markup:
    """A cell that ends at the right; `label` names it where a narrow window hides the column heads."""
    kind = "number unknown" if value == words.UNKNOWN else "number"
    return tag("td", value, class_=kind, title=hint, data_label=label)


def result_table(report: Report) -> Markup:
    """plain | compressed | limit | met."""
    return table(
        [head_row("", "original", "compressed", "limit", "met?")],
        [result_row(line) for line in report.lines],
        "test",
        f"Size of the plain tensors and of the file; {report.metric_name} of both on the same "
        f"{report.test.samples:,} samples of the test data",
    )


def result_row(line: Line) -> Markup:
    met = words.met_text(line.met, line.limit)
    kind = {"yes": "good", "no": "bad"}.get(met, "quiet")
    return tag(
        "tr",
        tag("th", line.what, scope="row"),
        number(words.quantity(line.original, line.unit), label="original"),
        number(words.quantity(line.compressed, line.unit), label="compressed"),
        number(line.limit or words.NOTHING, label="limit"),
        number(tag("span", MARKS[met] + met, class_=f"pill {kind}"), label="met?"),
    )


def stage_table(report: Report) -> Markup:
    """Every stage with its knobs, the size, the score, the share of nonzero weights and the time."""
    heads = tag(
        "tr",
        right_head("#"),
        tag("th", "stage", scope="col"),
        *[right_head(name) for name in ("file", "smaller", report.metric_name, "nonzero", "took")],
    )
    original_score = words.quantity(report.original_validation, report.metric_unit)
    nothing = number(words.NOTHING)
    name, size = tag("th", "original network", scope="row"), number(size_text(report.original_bytes))
    original = tag("tr", nothing, name, size, number("1×"), number(original_score), nothing, nothing)
    rows = [stage_row(report, place, stage) for place, stage in enumerate(report.stages, 1)]
    caption = "After every stage: the file as written, and the score on the validation data"
    return table([heads], [original, *rows], "stages", caption)


def stage_row(report: Report, place: int, stage: Stage) -> Markup:
    knobs = tag("small", words.knobs_text(stage.knobs)) if stage.knobs else None
    return tag(
        "tr",
        number(place),
        tag("th", stage.title, knobs, scope="row"),
        number(size_text(stage.size_bytes)),
        number(words.times_smaller(report.original_bytes, stage.size_bytes)),
        number(words.quantity(stage.score, report.metric_unit)),
        number(words.percent(stage.nonzero)),
        number(time_text(stage.seconds * 1000)),
    )


def layer_table(report: Report) -> Markup:
    """The columns of Deep Compression's tables 4 and 5, and what our file needs."""
    parts = split(report)
    groups = ("bits of a weight", "bits of its index", "rate with codebook", "in our file")
    spans = [tag("th", group, colspan=2, scope="colgroup") for group in groups]
    over = tag("tr", tag("td", colspan=4), *spans, class_="groups")
    coded = ("P+Q", "P+Q+H") * 3
    heads = head_row("layer", "form", "weights", "left (P)", *coded, "bytes", "rate")
    rows = [layer_row(row) for row in parts.weights]
    if parts.rest:
        rows.append(layer_row(total_row(parts.rest, f"{len(parts.rest)} biases, norms and buffers"), "rest"))
    dashes = [number(words.NOTHING)] * 8
    head_bytes = number(f"{parts.head_bytes:,} B")
    head_name = tag("th", "head of the file", scope="row")
    rows.append(tag("tr", head_name, tag("td"), *dashes, head_bytes, number(words.NOTHING), class_="rest"))
    if parts.weights:
        rows.append(layer_row(total_row(parts.weights, "all weights"), "total"))
    return table([over, heads], rows, "layers", "P pruned, Q shared or quantized, H under Huffman codes")


def layer_row(row: LayerRow, kind: str | None = None) -> Markup:
    """One weight, or a sum of rows."""
    shape = "×".join(str(size) for size in row.shape)
    name = join(row.path, tag("small", shape) if shape else None)
    return tag(
        "tr",
        tag("th", name, scope="row"),
        tag("td", row.form or (words.NOTHING if row.shape else ""), class_="form"),
        number(count_text(row.original_entries), f"{row.original_entries:,} in the original network"),
        number(words.percent(row.kept), f"{row.nonzeros:,} are not zero"),
        number(words.bits(row.value_bits)),
        number(words.bits(row.value_bits_huffman)),
        number(words.bits(row.index_bits)),
        number(words.bits(row.index_bits_huffman)),
        number(words.percent(row.rate, 2)),
        number(words.percent(row.rate_huffman, 2)),
        number(f"{row.size_bytes:,} B"),
        number(words.percent(row.file_rate, 2)),
        class_=kind,
    )


def facts(rows: Sequence[tuple[str, object]]) -> Markup:
    """Names and values as a list."""
    return tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in rows], class_="facts")
