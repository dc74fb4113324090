"""Tables: the rows of a report as HTML, numbers with their units."""

from collections.abc import Sequence

from cortado.file.accounting import LayerRow
from cortado.quantities import count_text, size_text, time_text
from cortado.report.pages import words
from cortado.report.pages.markup import Markup, join, tag
from cortado.report.pages.totals import total_row, weights_and_rest
from cortado.report.record import Line, Record, Stage

MARKS = {"yes": "✓ ", "no": "✗ ", "unknown": "? ", words.NOTHING: ""}


def table(heads: Sequence[object], rows: Sequence[object], kind: str, caption: str) -> Markup:
    """Return a table with a caption; it scrolls sideways in a narrow window."""
    made = tag("table", tag("thead", *heads), tag("tbody", *rows), class_=kind, aria_label=caption)
    return join(tag("p", caption, class_="note"), tag("div", made, class_="scroll", tabindex=0))


def head_row(*names: str) -> Markup:
    """Return the column heads; the first one is for the row names."""
    return tag("tr", tag("th", names[0], scope="col"), *[right_head(name) for name in names[1:]])


def right_head(name: str) -> Markup:
    """Return the head of a column of numbers."""
    return tag("th", name, scope="col", class_="number")


def number(value: object, hint: str | None = None, label: str | None = None) -> Markup:
    """Return a right-aligned cell; `label` replaces the column head in a narrow window."""
    kind = "number unknown" if value == words.UNKNOWN else "number"
    return tag("td", value, class_=kind, title=hint, data_label=label)


def result_table(report: Record) -> Markup:
    """Return the table original | compressed | limit | met."""
    return table(
        [head_row("", "original", report.compressed_head, "limit", "met?")],
        [result_row(line, report.compressed_head) for line in report.first_lines()],
        "test",
        f"Size of the original tensors and of the file; {report.metric_name} of both networks on "
        f"{report.test.samples:,} samples of the test data",
    )


def result_row(line: Line, head: str) -> Markup:
    met = words.met_text(line.met, line.limit)
    kind = {"yes": "good", "no": "bad"}.get(met, "quiet")
    return tag(
        "tr",
        tag("th", line.what, scope="row"),
        number(words.quantity(line.original, line.unit), label="original"),
        number(words.quantity(line.compressed, line.unit), label=head),
        number(line.limit or words.NOTHING, label="limit"),
        number(tag("span", MARKS[met] + met, class_=f"pill {kind}"), label="met?"),
    )


def stage_heads(report: Record) -> tuple[str, ...]:
    """Return the heads of the table of stages."""
    return ("file", "smaller", report.metric_name, "nonzero", "time")


def original_cells(report: Record) -> tuple[str, ...]:
    """Return the cells of the original network."""
    score = words.quantity(report.original_validation, report.metric_unit)
    return (size_text(report.original_bytes), "1×", score, words.NOTHING, words.NOTHING)


def stage_cells(report: Record, stage: Stage) -> tuple[str, ...]:
    """Return the cells of a stage: size, score, share of nonzero weights, time."""
    smaller = words.times_smaller(report.original_bytes, stage.size_bytes)
    score, took = words.quantity(stage.score, report.metric_unit), time_text(stage.seconds * 1000)
    return (size_text(stage.size_bytes), smaller, score, words.percent(stage.nonzero), took)


def stage_table(report: Record) -> Markup:
    """Return the table of stages with their knobs."""
    heads = tag("tr", right_head("#"), tag("th", "stage", scope="col"), *map(right_head, stage_heads(report)))
    rows = [stage_row(words.NOTHING, tag("th", "original network", scope="row"), original_cells(report))]
    for place, stage in enumerate(report.stages, 1):
        knobs = tag("small", words.knobs_text(stage.knobs)) if stage.knobs else None
        rows.append(stage_row(place, tag("th", stage.title, knobs, scope="row"), stage_cells(report, stage)))
    caption = "After every stage: the file as written, and the score on the validation data"
    return table([heads], rows, "stages", caption)


def stage_row(place: object, name: Markup, cells: Sequence[str]) -> Markup:
    return tag("tr", number(place), name, *map(number, cells))


def layer_table(report: Record, deep_compression: bool = False) -> Markup:
    """Return the bytes of each layer in our file, optionally with the columns of Deep Compression's tables 4 and 5."""
    parts = weights_and_rest(report)
    groups = ("bits of a weight", "bits of its index", "rate with codebook", "in our file")
    spans = [tag("th", group, colspan=2, scope="colgroup") for group in groups]
    over = tag("tr", tag("td", colspan=4), *spans, class_="groups") if deep_compression else None
    coded = ("P+Q", "P+Q+H") * 3 if deep_compression else ()
    remaining = "remaining (P)" if deep_compression else "remaining"
    heads = head_row("layer", "form", "weights", remaining, *coded, "bytes", "rate")
    rows = [layer_row(row, deep_compression) for row in parts.weights]
    if parts.rest:
        rest = total_row(parts.rest, f"{len(parts.rest)} biases, norms and buffers")
        rows.append(layer_row(rest, deep_compression, "rest"))
    dashes = [number(words.NOTHING)] * (2 + len(coded))
    head_bytes = number(f"{parts.head_bytes:,} B")
    head_name = tag("th", "file header", scope="row")
    rows.append(tag("tr", head_name, tag("td"), *dashes, head_bytes, number(words.NOTHING), class_="rest"))
    if parts.weights:
        rows.append(layer_row(total_row(parts.weights, "all weights"), deep_compression, "total"))
    caption = "P pruned, Q shared or quantized, H under Huffman codes" if deep_compression else "Layers in our file"
    return table([over, heads], rows, "layers", caption)


def layer_row(row: LayerRow, deep_compression: bool, kind: str | None = None) -> Markup:
    """Return the row of one weight or of a sum."""
    shape = "×".join(str(size) for size in row.shape)
    path, form, weights, remaining, *rest = layer_cells(row, deep_compression)
    return tag(
        "tr",
        tag("th", path, tag("small", shape) if shape else None, scope="row"),
        tag("td", form or (words.NOTHING if shape else ""), class_="form"),
        number(weights, f"{row.original_entries:,} in the original network"),
        number(remaining, f"{row.nonzeros:,} nonzero"),
        *map(number, rest),
        class_=kind,
    )


def layer_cells(row: LayerRow, deep_compression: bool) -> tuple[str, ...]:
    """Return name, form, weights, remaining share, optionally Deep Compression's figures, and ours."""
    means = (row.value_bits, row.value_bits_huffman, row.index_bits, row.index_bits_huffman)
    rates = (row.rate, row.rate_huffman)
    coded = (*map(words.bits, means), *(words.percent(rate, 2) for rate in rates)) if deep_compression else ()
    ours = (f"{row.size_bytes:,} B", words.percent(row.file_rate, 2))
    return (row.path, row.form, count_text(row.original_entries), words.percent(row.kept), *coded, *ours)


def fact_list(rows: Sequence[tuple[str, object]]) -> Markup:
    """Return names and values as a list."""
    return tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in rows], class_="facts")
