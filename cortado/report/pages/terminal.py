"""The report as text for a terminal: aligned columns, the result first."""

from cortado.quantities import size_text, time_text
from cortado.report.pages import words
from cortado.report.pages.candidates import candidate_rows
from cortado.report.pages.clocks import HEADS, READING, clock_rows, clock_title, exported_text, predicted_text
from cortado.report.pages.kernels import kernel_table_text
from cortado.report.pages.served import served_text
from cortado.report.pages.shifts import HEADS as SHIFTED
from cortado.report.pages.shifts import shift_rows, shift_title
from cortado.report.pages.tables import layer_cells, original_cells, stage_cells, stage_heads
from cortado.report.pages.totals import deep_compression_bytes, total_row, weights_and_rest
from cortado.report.record import Record
from cortado.table import aligned


def report_text(report: Record, deep_compression: bool = False) -> str:
    """Return all tables of a report, the first screen first, without colours and final newline.

    `deep_compression` adds the columns and the total by that paper's arithmetic.
    """
    blocks = [
        first_screen(report),
        front_block(report),
        clock_block(report),
        shift_block(report),
        stage_block(report),
        layer_block(report, deep_compression),
        closing(report, deep_compression),
    ]
    return "\n\n".join(block for block in blocks if block)


def first_screen(report: Record) -> str:
    """Return the summary: original | compressed | limit | met, the significance of the change, and warnings."""
    word, sentence = words.outcome(report)
    rows: list[tuple[str, ...]] = [("", "original", report.compressed_head, "limit", "met?")]
    for line in report.first_lines():
        values = [words.quantity(value, line.unit) for value in (line.original, line.compressed)]
        rows.append((line.what, *values, line.limit or words.NOTHING, words.met_text(line.met, line.limit)))
    title = f"{report.network} on {report.task}: {words.smaller(report)}. {word.upper()}. {sentence}"
    remarks = (words.change_text(report), words.execution_text(report), words.time_hint(report), served_text(report))
    change = "\n".join(part for part in remarks if part)
    return "\n\n".join(part for part in (title, aligned(rows), change, warning_block(report)) if part)


def warning_block(report: Record) -> str:
    """Return one line for each warning, then one for each note of a stage."""
    return "\n".join(f"{word}: {one}" for word, found in words.remarks(report).items() for one in found)


def front_block(report: Record) -> str:
    """Return the trials of a search, smallest first; "" for a recipe."""
    rows = candidate_rows(report)
    return aligned(rows) if rows else ""


def clock_block(report: Record) -> str:
    """Return scores in the runtimes, times and ratios; "" without runtimes."""
    blocks = ["\n".join(exported_text(row, report.metric_name, report.metric_unit) for row in report.exports)]
    blocks += [made for row in report.exports if (made := kernel_table_text(row))]
    blocks += [f"{clock_title(clock)}\n{aligned([HEADS, *clock_rows(clock)], '<<>')}" for clock in report.clocks]
    return "\n\n".join([*blocks, f"{READING}\n{predicted_text(report)}"]) if report.clocks else ""


def shift_block(report: Record) -> str:
    """Return the scores on shifted test samples; "" without any."""
    return f"{shift_title(report)}\n{aligned([SHIFTED, *shift_rows(report)])}" if report.shifts else ""


def stage_block(report: Record) -> str:
    """Return size, score, share of nonzero weights and, if timed, latency after every stage."""
    timed = any(stage.latency_ms is not None for stage in report.stages)
    original_ms = next((line.original for line in report.lines if line.unit == "ms"), None)
    rows = [("stage", *stage_heads(report)), ("original", *original_cells(report))]
    rows += [(f"{at} {stage.title}", *stage_cells(report, stage)) for at, stage in enumerate(report.stages, 1)]
    if timed:
        taken = ["latency", *map(latency_text, (original_ms, *(stage.latency_ms for stage in report.stages)))]
        rows = [(*row[:4], time, *row[4:]) for row, time in zip(rows, taken, strict=True)]
    return aligned(rows)


def latency_text(milliseconds: float | None) -> str:
    """Return a time, or a dash for None."""
    return words.NOTHING if milliseconds is None else time_text(milliseconds)


def layer_block(report: Record, deep_compression: bool) -> str:
    """Return the bytes of each layer in our file, optionally with Deep Compression's columns."""
    parts = weights_and_rest(report)
    if not report.layers:
        return ""
    coded = ("bits P+Q", "+H", "index P+Q", "+H", "rate P+Q", "+H") if deep_compression else ()
    heads = ("layer", "form", "weights", "remaining", *coded, "our file", "rate")
    rows = [heads, *[layer_cells(row, deep_compression) for row in parts.weights]]
    if parts.rest:
        rows.append(layer_cells(total_row(parts.rest, f"{len(parts.rest)} biases, norms, buffers"), deep_compression))
    if parts.weights:
        rows.append(layer_cells(total_row(parts.weights, "all weights"), deep_compression))
    return aligned(rows, "<<>")


def closing(report: Record, deep_compression: bool) -> str:
    """Return notes on the columns, optionally with the paper's total beside ours."""
    end = f"Stages are scored on the validation data. Seed {report.seed}. 1 KB is 1,000 bytes."
    if not deep_compression:
        return end
    paper_bytes = deep_compression_bytes(report)
    paper = "unknown" if paper_bytes is None else size_text(paper_bytes)
    return (
        "Bits are means over stored entries, by the arithmetic of Deep Compression (Han, Mao, Dally, 2016): P pruned,\n"
        "Q shared or quantized, H Huffman codes. The network's size by that arithmetic: "
        f"{paper}; our file: {size_text(report.size_bytes)}.\n{end}"
    )
