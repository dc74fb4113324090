"""The report as plain text for a terminal: aligned columns, the test result first."""

from cortado.quantities import size_text, time_text
from cortado.report.pages import words
from cortado.report.pages.candidates import candidate_rows
from cortado.report.pages.clocks import HEADS, READING, clock_title, exported_text, predicted_text, rows_of
from cortado.report.pages.tables import layer_cells, plain_cells, stage_cells, stage_heads
from cortado.report.pages.totals import deep_compression_bytes, split, total_row
from cortado.report.record import Record
from cortado.table import aligned


def report_text(report: Record, deep_compression: bool = False) -> str:
    """Return all tables of a report, the first screen first, without colours and without a newline at the end.

    `deep_compression` adds the columns and the total of that paper's arithmetic.
    """
    blocks = [
        first_screen(report),
        front_block(report),
        clock_block(report),
        stage_block(report),
        layer_block(report, deep_compression),
        closing(report, deep_compression),
    ]
    return "\n\n".join(block for block in blocks if block)


def first_screen(report: Record) -> str:
    """Return what a reader takes away in ten seconds: plain | compressed | limit | met, how sure it is, and warnings."""
    word, sentence = words.outcome(report)
    rows: list[tuple[str, ...]] = [("", "original", "compressed", "limit", "met?")]
    for line in report.first_lines():
        values = [words.quantity(value, line.unit) for value in (line.original, line.compressed)]
        rows.append((line.what, *values, line.limit or words.NOTHING, words.met_text(line.met, line.limit)))
    title = f"{report.network} on {report.task}: {words.smaller(report)}. {word.upper()}. {sentence}"
    said = "\n".join(part for part in (words.change_text(report), words.time_hint(report)) if part)
    return "\n\n".join(part for part in (title, aligned(rows), said, warning_block(report)) if part)


def warning_block(report: Record) -> str:
    """One line a warning."""
    return "\n".join(f"warning: {warning}" for warning in report.warnings)


def front_block(report: Record) -> str:
    """What a search tried, smallest first; nothing where a recipe was given."""
    rows = candidate_rows(report)
    return aligned(rows) if rows else ""


def clock_block(report: Record) -> str:
    """Scores in the runtimes, times and the three ratios; nothing when no runtime was asked for."""
    blocks = ["\n".join(exported_text(row, report.metric_name, report.metric_unit) for row in report.exports)]
    blocks += [f"{clock_title(clock)}\n{aligned([HEADS, *rows_of(clock)], '<<>')}" for clock in report.clocks]
    return "\n\n".join([*blocks, f"{READING}\n{predicted_text(report)}"]) if report.clocks else ""


def stage_block(report: Record) -> str:
    """Return size, score, share of nonzero weights and, where it was taken, the time of a call after every stage."""
    timed = any(stage.latency_ms is not None for stage in report.stages)
    original_ms = next((line.original for line in report.lines if line.unit == "ms"), None)
    rows = [("stage", *stage_heads(report)), ("original", *plain_cells(report))]
    rows += [(f"{at} {stage.title}", *stage_cells(report, stage)) for at, stage in enumerate(report.stages, 1)]
    if timed:
        taken = ["latency", *map(latency_text, (original_ms, *(stage.latency_ms for stage in report.stages)))]
        rows = [(*row[:4], time, *row[4:]) for row, time in zip(rows, taken, strict=True)]
    return aligned(rows)


def latency_text(milliseconds: float | None) -> str:
    """Return a time, or a dash where there is none."""
    return words.NOTHING if milliseconds is None else time_text(milliseconds)


def layer_block(report: Record, deep_compression: bool) -> str:
    """Return the bytes of each layer in our file, beside Deep Compression's columns where they are asked for."""
    parts = split(report)
    if not report.layers:
        return ""
    coded = ("bits P+Q", "+H", "index P+Q", "+H", "rate P+Q", "+H") if deep_compression else ()
    heads = ("layer", "form", "weights", "left", *coded, "our file", "rate")
    rows = [heads, *[layer_cells(row, deep_compression) for row in parts.weights]]
    if parts.rest:
        rows.append(layer_cells(total_row(parts.rest, f"{len(parts.rest)} biases, norms, buffers"), deep_compression))
    if parts.weights:
        rows.append(layer_cells(total_row(parts.weights, "all weights"), deep_compression))
    return aligned(rows, "<<>")


def closing(report: Record, deep_compression: bool) -> str:
    """Return what the columns mean, and the paper's total beside ours where it is asked for."""
    end = f"Stages are scored on the validation data. Seed {report.seed}. 1 KB is 1,000 bytes."
    if not deep_compression:
        return end
    paper_bytes = deep_compression_bytes(report)
    paper = "unknown" if paper_bytes is None else size_text(paper_bytes)
    return (
        "Bits are means over stored entries, by the arithmetic of Deep Compression (Han, Mao, Dally, 2016): P pruned,\n"
        "Q shared or quantized, H Huffman codes. The network's size by it: "
        f"{paper}; our file as written: {size_text(report.size_bytes)}.\n{end}"
    )
