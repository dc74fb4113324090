"""The report as plain text for a terminal: aligned columns, the test result first."""

from collections.abc import Sequence

from cortado.file.accounting import LayerRow
from cortado.quantities import count_text, size_text, time_text
from cortado.report.pages import words
from cortado.report.pages.candidates import candidate_rows
from cortado.report.pages.clocks import HEADS, READING, clock_title, exported_text, predicted_text, rows_of
from cortado.report.pages.totals import deep_compression_bytes, split, total_row
from cortado.report.report import Report


def report_text(report: Report) -> str:
    """Test, stages, layers and warnings, without colours and without a newline at the end."""
    blocks = [
        result_block(report),
        warning_block(report),
        front_block(report),
        clock_block(report),
        stage_block(report),
        layer_block(report),
    ]
    blocks.append(closing(report))
    return "\n\n".join(block for block in blocks if block)


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows as columns two blanks apart: the first `left` begin at the left, the others end at the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[:left] = [cell.ljust(width) for cell, width in zip(row[:left], widths[:left], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def result_block(report: Report) -> str:
    """plain | compressed | limit | met, and how sure the difference is."""
    word, sentence = words.outcome(report)
    rows: list[tuple[str, ...]] = [("", "original", "compressed", "limit", "met?")]
    for line in report.lines:
        values = [words.quantity(value, line.unit) for value in (line.original, line.compressed)]
        rows.append((line.what, *values, line.limit or words.NOTHING, words.met_text(line.met, line.limit)))
    compared = report.test
    difference = f"{words.signed(compared.difference)} {words.points(report.metric_unit)}".rstrip()
    change = (
        f"{report.metric_name}: {difference} on {compared.samples:,} test samples, "
        f"{words.interval(compared)}: {words.meaning(report)}"
    )
    times = words.times_smaller(report.original_bytes, report.size_bytes)
    title = f"{report.network} on {report.task}: {times} smaller. {word.upper()}. {sentence}"
    return f"{title}\n\n{aligned(rows)}\n\n{change}"


def warning_block(report: Report) -> str:
    """One line a warning."""
    return "\n".join(f"warning: {warning}" for warning in report.warnings)


def front_block(report: Report) -> str:
    """What a search tried, smallest first; nothing where a recipe was given."""
    rows = candidate_rows(report)
    return aligned(rows) if rows else ""


def clock_block(report: Report) -> str:
    """Scores in the runtimes, times and the three ratios; nothing when no runtime was asked for."""
    blocks = ["\n".join(exported_text(row, report.metric_name, report.metric_unit) for row in report.exports)]
    blocks += [f"{clock_title(clock)}\n{aligned([HEADS, *rows_of(clock)], left=2)}" for clock in report.clocks]
    return "\n\n".join([*blocks, f"{READING}\n{predicted_text(report)}"]) if report.clocks else ""


def stage_block(report: Report) -> str:
    """Size, score, share of nonzero weights and, where it was taken, the time of a call after every stage."""
    timed = any(stage.latency_ms is not None for stage in report.stages)
    original_ms = next((line.original for line in report.lines if line.unit == "ms"), None)
    original = (
        "original",
        size_text(report.original_bytes),
        "1×",
        words.quantity(report.original_validation, report.metric_unit),
    )
    rows: list[tuple[str, ...]] = [
        ("stage", "size", "smaller", report.metric_name, *["latency"] * timed, "nonzero", "took"),
        (*original, *[latency_text(original_ms)] * timed, words.NOTHING, words.NOTHING),
    ]
    for place, stage in enumerate(report.stages, 1):
        rows.append(
            (
                f"{place} {stage.title}",
                size_text(stage.size_bytes),
                words.times_smaller(report.original_bytes, stage.size_bytes),
                words.quantity(stage.score, report.metric_unit),
                *[latency_text(stage.latency_ms)] * timed,
                words.percent(stage.nonzero),
                time_text(stage.seconds * 1000),
            )
        )
    return aligned(rows)


def latency_text(milliseconds: float | None) -> str:
    """A time, or a dash where there is none."""
    return words.NOTHING if milliseconds is None else time_text(milliseconds)


def layer_block(report: Report) -> str:
    """Deep Compression's columns, and the bytes in our file."""
    parts = split(report)
    if not report.layers:
        return ""
    coded = ("bits P+Q", "+H", "index P+Q", "+H", "rate P+Q", "+H")
    heads = ("layer", "form", "weights", "left", *coded, "our file", "rate")
    rows = [heads, *[layer_cells(row) for row in parts.weights]]
    if parts.rest:
        rows.append(layer_cells(total_row(parts.rest, f"{len(parts.rest)} biases, norms, buffers")))
    if parts.weights:
        rows.append(layer_cells(total_row(parts.weights, "all weights")))
    return aligned(rows, left=2)


def layer_cells(row: LayerRow) -> tuple[str, ...]:
    return (
        row.path,
        row.form,
        count_text(row.original_entries),
        words.percent(row.kept),
        words.bits(row.value_bits),
        words.bits(row.value_bits_huffman),
        words.bits(row.index_bits),
        words.bits(row.index_bits_huffman),
        words.percent(row.rate, 2),
        words.percent(row.rate_huffman, 2),
        f"{row.size_bytes:,} B",
        words.percent(row.file_rate, 2),
    )


def closing(report: Report) -> str:
    """What the columns mean, and the paper's total beside ours."""
    paper_bytes = deep_compression_bytes(report)
    paper = "unknown" if paper_bytes is None else size_text(paper_bytes)
    return (
        "Bits are means over stored entries, by the arithmetic of Deep Compression (Han, Mao, Dally, 2016): P pruned,\n"
        "Q shared or quantized, H Huffman codes. The network's size by it: "
        f"{paper}; our file as written: {size_text(report.size_bytes)}.\n"
        f"Stages are scored on the validation data. Seed {report.seed}. 1 KB is 1,000 bytes."
    )
