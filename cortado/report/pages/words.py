"""Words: measured numbers as text with their units; None is "unknown"."""

import math
from collections.abc import Sequence

from cortado.quantities import size_text, time_text
from cortado.report.record import Compared, Record, Stage, notes_of

UNKNOWN = "unknown"
NOTHING = "–"
MINUS = "−"
LIMITS_MET = {1: "The limit is met.", 2: "Both limits are met."}


def sized(size_bytes: float) -> str:
    """Return 44119 as "44.1 KB (44,119 B)"."""
    short = size_text(size_bytes)
    return short if abs(size_bytes) < 1000 else f"{short} ({size_bytes:,.0f} B)"


def quantity(value: float | None, unit: str) -> str:
    """Return a value with its unit; bytes (B) and milliseconds (ms) in a readable multiple."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return "not a number"
    if unit == "B":
        return sized(value)
    if unit == "ms":
        return time_text(value)
    number = f"{value:.2f}" if unit == "%" else f"{value:,.0f}" if value == round(value) else f"{value:.4g}"
    return f"{number} {unit}".rstrip().replace("-", MINUS)


def percent(share: float | None, digits: int = 1) -> str:
    """Return 0.084 as "8.4 %"."""
    return NOTHING if share is None else f"{share * 100:.{digits}f} %"


def bits(mean: float | None) -> str:
    """Return bits per entry, with decimals if needed; a dash for None."""
    return NOTHING if mean is None else f"{mean:.0f}" if mean == round(mean) else f"{mean:.2f}"


def times_smaller(original: float, small: float) -> str:
    """Return 1720000 over 44000 as "39.1×"."""
    return f"{original / small:.3g}×" if small and original else UNKNOWN


def signed_text(value: float) -> str:
    """Return a value with two decimals and a sign."""
    if not math.isfinite(value):
        return "not a number"
    return "±0.00" if round(value, 2) == 0 else f"{value:+.2f}".replace("-", MINUS)


def points(unit: str) -> str:
    """Return the unit of a difference of scores: points for percentages."""
    return "points" if unit == "%" else unit


def interval(compared: Compared) -> str:
    """Return the 95 % interval of the difference, or that it is unknown."""
    if compared.low is None or compared.high is None:
        return f"95 % interval unknown ({compared.samples:,} samples are too few)"
    return f"95 % interval {signed_text(compared.low)} to {signed_text(compared.high)}"


def meaning(report: Record) -> str:
    """Return whether the difference is significant."""
    compared = report.test
    if compared.low is None or compared.high is None:
        return f"whether the {report.metric_name} changed is unknown"
    if compared.low <= 0 <= compared.high:
        return "no significant difference"
    return "significantly better" if (compared.low > 0) == report.higher_is_better else "significantly worse"


def smaller(report: Record) -> str:
    """Return "21.9× smaller as .cortado file, 3.4× as onnxruntime file"."""
    files = [
        f"{times_smaller(row.original_bytes, row.size_bytes)} as {row.runtime} file"
        for row in report.exports
        if row.original_bytes
    ]
    return ", ".join([f"{times_smaller(report.original_bytes, report.size_bytes)} smaller as .cortado file", *files])


def gain(report: Record) -> str:
    """Return "21.9× smaller as .cortado file, accuracy −1.40 points"."""
    change = f"{signed_text(report.test.difference)} {points(report.metric_unit)}".rstrip()
    return f"{smaller(report)}, {report.metric_name} {change}"


def change_text(report: Record) -> str:
    """Return the difference of scores on the test data, its interval and significance."""
    compared = report.test
    difference = f"{signed_text(compared.difference)} {points(report.metric_unit)}".rstrip()
    on = f"{difference} on {compared.samples:,} test samples"
    return f"{report.metric_name}: {on}, {interval(compared)}: {meaning(report)}"


def time_hint(report: Record) -> str:
    """Return how to measure time if no runtime was used; "" otherwise."""
    timed = report.clocks or any(line.unit == "ms" for line in report.lines)
    return "" if timed else "time: not measured, add --measure-in onnxruntime"


def certainty(report: Record) -> str:
    """Return the significance of the difference of scores, and how many warnings and notes there are."""
    significance = f"{report.metric_name.capitalize()}: {meaning(report)} ({interval(report.test)})."
    many = [counted_text(found, word).replace(" ", "\u00a0") for word, found in remarks(report).items() if found]
    return significance + (f" {' and '.join(many)} below." if many else "")


def remarks(report: Record) -> dict[str, list[str]]:
    """Return what a report remarks, under "warning" and "note"; a note says what a stage did."""
    noted = notes_of(report.stages)
    return {
        "warning": [one for one in report.warnings if one not in noted],
        "note": [one for one in report.warnings if one in noted],
    }


def counted_text(found: Sequence[str], word: str) -> str:
    """Return "1 note" or "2 notes"."""
    return f"{len(found)} {word}{'' if len(found) == 1 else 's'}"


def outcome(report: Record) -> tuple[str, str]:
    """Return the outcome as a word (met, missed, unknown or no limits) and a sentence."""
    limited = [line for line in report.lines if line.limit]
    missed = [line.what for line in limited if line.met is False]
    open_lines = [line.what for line in limited if line.met is None]
    if missed:
        return "missed", f"{len(missed)} of {len(limited)} limits missed: {', '.join(missed)}."
    if open_lines:
        return UNKNOWN, f"Not measured: {', '.join(open_lines)}."
    if limited:
        return "met", LIMITS_MET.get(len(limited), f"All {len(limited)} limits are met.")
    return "no limits", "No limits were set."


def stage_text(stage: Stage, metric_name: str, unit: str) -> str:
    """Return a stage as a line of the log: "finetune: 12.3 KB, accuracy 97.20 %, 8.1 s"."""
    score = f"{metric_name} {quantity(stage.score, unit)}"
    return f"{stage.name}: {size_text(stage.size_bytes)}, {score}, {time_text(stage.seconds * 1000)}"


def met_text(met: bool | None, limit: str) -> str:
    """Return "yes", "no", "unknown", or a dash without a limit."""
    if not limit:
        return NOTHING
    return UNKNOWN if met is None else "yes" if met else "no"


def knobs_text(knobs: object) -> str:
    """Return {"keep": 0.3, "by": "magnitude"} as "keep=0.3 by=magnitude"; lists in brackets."""
    if isinstance(knobs, dict):
        return " ".join(f"{key}={knob_text(value)}" for key, value in knobs.items())
    return knob_text(knobs)


def knob_text(value: object) -> str:
    """Return a value as written in a recipe."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(knob_text(inner) for inner in value) + "]"
    if isinstance(value, dict):
        return "{" + knobs_text(value) + "}"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def execution_text(report: Record) -> str:
    """Return for what share of the samples each part ran that only some need; "" without any."""
    parts = [f"{path} ran for {share:.0%} of the samples" for path, share in report.execution.items()]
    return f"{'; '.join(parts)}." if parts else ""
