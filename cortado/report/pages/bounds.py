"""Bounds: a report's limits of size, score and latency as values on the axes of its charts."""

from dataclasses import dataclass

from cortado.errors import BadValue
from cortado.report.record import Record
from cortado.task.limits import Limit, in_unit, read_limit


@dataclass(frozen=True)
class Bound:
    """A limit: `value` in bytes, milliseconds, or in the score's unit on the validation data; `text` as it was written."""

    value: float
    text: str


def size_bound(report: Record) -> Bound | None:
    """Return the size limit in bytes, or None."""
    limit = limit_of(report, "size")
    return None if limit is None else Bound(limit.value, limit.text)


def score_bound(report: Record) -> Bound | None:
    """Return the score limit, or None; a relative one is added to the original's score on the validation data."""
    limit = limit_of(report, "score")
    if limit is None:
        return None
    sign, score = 1 if report.higher_is_better else -1, report.original_validation
    change = in_unit(limit, report.metric_unit).change(score)
    return Bound(score + sign * change if limit.relative else limit.value, limit.text)


def time_bound(report: Record) -> Bound | None:
    """Return the latency limit in milliseconds in the first runtime, or None."""
    limit, first = limit_of(report, "latency"), next((line for line in report.lines if line.unit == "ms"), None)
    return Bound(limit.value, limit.text) if limit and first and first.limit == limit.text else None


def limit_of(report: Record, what: str) -> Limit | None:
    """Return the limit of this kind in the report's lines; charts have no axis for scores on shifted samples."""
    read = [readable(line.limit) for line in report.lines if line.limit]
    return next((limit for limit in read if limit is not None and limit.what == what and not limit.shift), None)


def readable(text: str) -> Limit | None:
    """Parse a limit; None for one that this version does not know."""
    try:
        return read_limit(text)
    except BadValue:
        return None
