"""Clocks: files, scores and times in runtimes, for the terminal and the page; predictions and measurements by their names."""

from cortado.quantities import count_text, size_text, time_text
from cortado.report.pages import words
from cortado.report.pages.charts import bar
from cortado.report.pages.markup import Markup, join, tag
from cortado.report.pages.tables import head_row, number, table
from cortado.report.report import Clock, Exported, Ratio, Report

HEADS = ("network", "runtime", "median", "quartiles", "over torch eager", "over the same runtime", "over the best")
READING = (
    "Times are wall-clock, of all variants in turns in one process. Each ratio is the median over rounds (quartiles): over "
    "the original network in torch eager, in the same runtime, and in the runtime that ran it fastest, all in float32."
)


def exported_text(row: Exported, metric_name: str, unit: str) -> str:
    """How the file agrees with PyTorch, in a line; how much of it runs in integers, and what it keeps packed."""
    whole = ""
    if row.integer_share is not None:
        shown = ", ".join(row.float_layers[:5]) + (" ..." if len(row.float_layers) > 5 else "")
        rest = f"; in floats: {shown}" if row.float_layers else ""
        whole = f". In integers: {words.percent(row.integer_share, 1)} of the multiply-adds{rest}"
    elif row.rounded:
        whole = ". Activations are rounded, but this runtime does not tell what it runs in integers"
    return (
        f"{row.runtime}: {metric_name} {words.quantity(row.score, unit)} in the runtime, "
        f"{words.quantity(row.torch_score, unit)} in PyTorch; same top-1 {words.percent(row.same_top, 2)}; largest "
        f"difference {row.difference:.1e} of the largest output, on {row.samples:,} samples{whole}{packed_text(row)}"
    )


def packed_text(row: Exported) -> str:
    """How many weights the file keeps in few bits, and which not, and why; nothing for a network that has none."""
    if row.packed_weights is None:
        return ""
    bits = " and ".join(str(count) for count in row.packed_bits)
    kept = f"{row.packed_weights:,} weights in {bits} bits" if row.packed_weights else "no weights"
    shown = ", ".join(row.dense_layers[:5]) + (" ..." if len(row.dense_layers) > 5 else "")
    rest = f"; form floats: {shown}" if row.dense_layers else ""
    return f". Packed: {kept}{rest}"


def ratio_text(ratio: Ratio | None) -> str:
    """2.03× (1.98 to 2.11)."""
    if ratio is None:
        return words.UNKNOWN
    return f"{ratio.median:.2f}× ({ratio.low:.2f} to {ratio.high:.2f})"


def clock_title(clock: Clock) -> str:
    """What was held fixed, and whether the machine was quiet."""
    state = "NOISY" if clock.noisy else "quiet"
    return (
        f"batch {clock.batch}, threads {clock.threads}, {clock.rounds} rounds; best float32: {clock.best}; "
        f"A/A in {clock.control} {ratio_text(clock.again)}: {state}"
    )


def predicted_text(report: Report) -> str:
    """The ratio of multiply-adds, called what it is."""
    original, small = report.multiply_adds
    if not original or not small:
        return "predicted from multiply-adds: unknown"
    return (
        f"predicted from multiply-adds: {count_text(original)} to {count_text(small)}, {original / small:.2f} times fewer; "
        "this is no measurement of time"
    )


def rows_of(clock: Clock) -> list[tuple[str, ...]]:
    """One row a variant."""
    return [
        (
            row.network, row.runtime, time_text(row.median_ms), f"{time_text(row.low_ms)} to {time_text(row.high_ms)}",
            ratio_text(row.over_eager), ratio_text(row.over_same), ratio_text(row.over_best),
        )
        for row in clock.times
    ]  # fmt: skip


def clock_bars(clock: Clock) -> Markup:
    """The medians as bars, in the order of the table."""
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


def clocks_section(report: Report) -> Markup | None:
    """The part of the page about runtimes; nothing when none was asked for."""
    if not report.exports and not report.clocks:
        return None
    unit = report.metric_unit
    files = [
        tag(
            "tr", tag("th", row.runtime, tag("small", row.version), scope="row"), number(size_text(row.size_bytes)),
            number(words.quantity(row.score, unit)), number(words.quantity(row.torch_score, unit)),
            number(words.percent(row.same_top, 2)), number(f"{row.difference:.1e}"),
        )
        for row in report.exports
    ]  # fmt: skip
    heads = ("runtime", "files", f"{report.metric_name} in it", "in PyTorch", "same top-1", "largest difference")
    caption = "The compressed network exported, on the test data"
    shown = []
    for clock in report.clocks:
        rows = [
            tag("tr", tag("th", row[0], scope="row"), *[number(cell) for cell in row[1:]]) for row in rows_of(clock)
        ]
        shown += [clock_bars(clock), table([head_row(*HEADS)], rows, "stages", clock_title(clock))]
    if files:
        shown.append(table([head_row(*heads)], files, "stages", caption))
    note = tag("p", f"{READING} {predicted_text(report)}.", class_="note")
    return tag("section", tag("h2", "Where the time goes"), join(*shown), note)
