"""Bounds: the limits of size, score and time of a report as values on the axes of its charts."""

from dataclasses import dataclass

from cortado.errors import BadValue
from cortado.report.record import Record
from cortado.task.limits import Limit, read_limit


@dataclass(frozen=True)
class Bound:
    """A limit: `value` in bytes, milliseconds, or in the score's unit on the validation data; `text` as it was written."""

    value: float
    text: str


def size_bound(report: Record) -> Bound | None:
    """The most bytes allowed, or None."""
    limit = limit_of(report, "size")
    return None if limit is None else Bound(limit.value, limit.text)


def score_bound(report: Record) -> Bound | None:
    """The worst score allowed, or None; one that counts from the original network's starts at its score on the validation data."""
    limit = limit_of(report, "score")
    if limit is None:
        return None
    sign = 1 if report.higher_is_better else -1
    return Bound(report.original_validation + sign * limit.value if limit.relative else limit.value, limit.text)


def time_bound(report: Record) -> Bound | None:
    """The most milliseconds allowed in the first runtime, or None."""
    limit, first = limit_of(report, "latency"), next((line for line in report.lines if line.unit == "ms"), None)
    return Bound(limit.value, limit.text) if limit and first and first.limit == limit.text else None


def limit_of(report: Record, what: str) -> Limit | None:
    """The limit of this kind among the lines of the test result."""
    read = [readable(line.limit) for line in report.lines if line.limit]
    return next((limit for limit in read if limit is not None and limit.what == what), None)


def readable(text: str) -> Limit | None:
    """A limit as it was written; None for one that this version does not know: it has no place on an axis then."""
    try:
        return read_limit(text)
    except BadValue:
        return None
