"""Clocks: files, scores and times in runtimes, for the terminal and the page."""

from cortado.quantities import count_text, size_text, time_text
from cortado.report.pages import words
from cortado.report.pages.charts import bar
from cortado.report.pages.kernels import first_names, kernel_sentences, kernel_table
from cortado.report.pages.markup import Markup, join, tag
from cortado.report.pages.tables import head_row, number, table
from cortado.report.record import Clock, Exported, Ratio, Record, Time

HEADS = ("network", "runtime", "median", "quartiles", "over torch eager", "over the same runtime", "over the best")
READING = (
    "Wall-clock times, all variants interleaved in one process. Each ratio is the median over rounds (quartiles): over the "
    "original network in torch eager, in the same runtime, and in the runtime that ran it fastest, all in float32."
)


def exported_text(row: Exported, metric_name: str, unit: str) -> str:
    """Return a line about the file's agreement with PyTorch and its contents."""
    same = "" if row.same_top is None else f"; same top-1 {words.percent(row.same_top, 2)}"
    agreement = (
        f"{row.runtime}: {metric_name} {words.quantity(row.score, unit)} in the runtime, "
        f"{words.quantity(row.torch_score, unit)} in PyTorch{same}; largest "
        f"difference {row.difference:.1e} of the largest output, on {row.samples:,} samples"
    )
    return ". ".join((agreement, *inside_text(row)))


def inside_text(row: Exported) -> list[str]:
    """Return sentences about the kernels that compute the layers, and about the file's inputs and outputs."""
    sentences = kernel_sentences(row.placements)
    if row.rounded and row.integer_share is None:
        floats = first_names("; in floats", row.float_operators)
        sentences.append(f"Activations are quantized, but this runtime does not report its share of integers{floats}")
    if row.paths:
        other = (
            f". {row.other_paths} of {row.samples:,} samples took another path than in PyTorch"
            if row.other_paths
            else ""
        )
        sentences.append(f"What only some samples need runs for them alone. Forms: {row.paths}{other}")
    if row.edges:
        sentences.append(f"The file has {'; '.join(edge.text() for edge in row.edges)}")
    return sentences


def ratio_text(ratio: Ratio | None) -> str:
    """Return "2.03× (1.98 to 2.11)"."""
    if ratio is None:
        return words.UNKNOWN
    return f"{ratio.median:.2f}× ({ratio.low:.2f} to {ratio.high:.2f})"


def clock_title(clock: Clock) -> str:
    """Return the conditions of a measurement, and whether the machine was quiet."""
    state = "NOISY" if clock.noisy else "quiet"
    each = f", mean over {clock.inputs} inputs" if clock.inputs > 1 else ""
    return (
        f"batch {clock.batch}{each}, threads {clock.threads}, {clock.rounds} rounds; best float32: {clock.best}; "
        f"A/A in {clock.control} {ratio_text(clock.again)}: {state}"
    )


def predicted_text(report: Record) -> str:
    """Return the ratio of multiply-adds, marked as a prediction."""
    original, small = report.multiply_adds
    if not original or not small:
        return "predicted from multiply-adds: unknown"
    return (
        f"predicted from multiply-adds: {count_text(original)} to {count_text(small)}, {original / small:.2f} times fewer; "
        "not a measurement of time"
    )


def spread_text(row: Time) -> str:
    """Return the quartiles of a time; over different inputs, the median and the 99th percentile of single calls."""
    if row.tails_ms is None:
        return f"{time_text(row.low_ms)} to {time_text(row.high_ms)}"
    middle, late = row.tails_ms
    return f"p50 {time_text(middle)}, p99 {time_text(late)}"


def clock_rows(clock: Clock) -> list[tuple[str, ...]]:
    """Return a row for each variant."""
    return [
        (
            row.network, row.runtime, time_text(row.median_ms), spread_text(row),
            ratio_text(row.over_eager), ratio_text(row.over_same), ratio_text(row.over_best),
        )
        for row in clock.times
    ]  # fmt: skip


def clock_bars(clock: Clock) -> Markup:
    """Return the medians as bars, in the order of the table."""
    largest = max((row.median_ms for row in clock.times), default=0.0)
    kinds = {"original": "original"}
    rows = [
        tag(
            "li", tag("span", f"{row.network} in {row.runtime}"),
            bar(row.median_ms, largest, time_text(row.median_ms), kinds.get(row.network, "small")),
        )
        for row in clock.times
    ]  # fmt: skip
    noise = ": noisy, see the warnings" if clock.noisy else ""
    title = f"median time of a call, batch {clock.batch}, threads {clock.threads}{noise}"
    return join(tag("h3", title), tag("ul", *rows, class_="times"))


def clocks_section(report: Record) -> Markup | None:
    """Return the section about runtimes; None without runtimes."""
    if not report.exports and not report.clocks:
        return None
    unit, classes = report.metric_unit, any(row.same_top is not None for row in report.exports)
    files = [
        tag(
            "tr", tag("th", row.runtime, tag("small", row.version), scope="row"), number(size_text(row.size_bytes)),
            number(words.quantity(row.score, unit)), number(words.quantity(row.torch_score, unit)),
            *[number(words.percent(row.same_top, 2))] * classes, number(f"{row.difference:.1e}"),
        )
        for row in report.exports
    ]  # fmt: skip
    heads = (
        "runtime",
        "files",
        f"{report.metric_name} in it",
        "in PyTorch",
        *["same top-1"] * classes,
        "largest difference",
    )
    caption = "The compressed network exported, on the test data"
    shown = []
    for clock in report.clocks:
        rows = [
            tag("tr", tag("th", row[0], scope="row"), *[number(cell) for cell in row[1:]]) for row in clock_rows(clock)
        ]
        shown += [clock_bars(clock), table([head_row(*HEADS)], rows, "stages", clock_title(clock))]
    if files:
        shown.append(table([head_row(*heads)], files, "stages", caption))
    shown += [made for row in report.exports if (made := kernel_table(row)) is not None]
    notes = [(row.runtime, inside_text(row)) for row in report.exports]
    shown += [tag("p", f"{name}: {'. '.join(sentences)}.", class_="note") for name, sentences in notes if sentences]
    note = tag("p", f"{READING} {predicted_text(report)}.", class_="note")
    return tag("section", tag("h2", "Where the time goes"), join(*shown), note)
