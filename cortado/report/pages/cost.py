"""Cost: the horizontal axis of the chart of trials, file size or latency."""

from collections.abc import Callable
from dataclasses import dataclass

from cortado.quantities import size_text, time_text
from cortado.report.candidate import Tried
from cortado.report.pages.bounds import Bound, limit_of, size_bound
from cortado.report.record import Record

LATENCY = "latency in "
"""Prefix of the report's lines with latencies."""
MICROSECONDS = 1000.0
"""Per millisecond: a log axis needs numbers above 1."""


@dataclass(frozen=True)
class CostAxis:
    """`of` returns a trial's cost, `original` is the original network's, `bound` the limit; `text` formats a cost."""

    name: str
    each: str
    original: float
    bound: Bound | None
    of: Callable[[Tried], float]
    text: Callable[[float], str]


def cost_axis(report: Record) -> CostAxis:
    """Return the latency axis if every trial and the original network were timed, else the size axis."""
    timed = next((line for line in report.lines if line.what.startswith(LATENCY) and line.original), None)
    if timed is None or timed.original is None or not all(one.latency_ms for one in report.front):
        original, bound = float(report.original_bytes), size_bound(report)
        return CostAxis("size of the file", "size", original, bound, lambda one: float(one.size_bytes), size_text)
    limit = limit_of(report, "latency")
    return CostAxis(
        timed.what.split(",")[0], "time", MICROSECONDS * timed.original,
        None if limit is None else Bound(MICROSECONDS * limit.value, limit.text),
        lambda one: MICROSECONDS * (one.latency_ms or 0.0), lambda value: time_text(value / MICROSECONDS),
    )  # fmt: skip
