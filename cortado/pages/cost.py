"""Cost: what a chart of candidates lays across - the bytes of a file, or its time where that counts."""

from collections.abc import Callable
from dataclasses import dataclass

from cortado.pages.bounds import Bound, limit_of, size_bound
from cortado.report import Report
from cortado.tried import Tried
from cortado.units import size_text, time_text

LATENCY = "latency in "
"""How the lines of the verdict with times begin."""
MICROSECONDS = 1000.0
"""In a millisecond: an axis by factors wants numbers above 1."""


@dataclass(frozen=True)
class Cost:
    """`of` gives a candidate's, `plain` is the plain network's, `bound` the most that is allowed; `text` writes one."""

    name: str
    each: str
    plain: float
    bound: Bound | None
    of: Callable[[Tried], float]
    text: Callable[[float], str]


def cost_of(report: Report) -> Cost:
    """Time where every candidate was timed and the plain network too: it is only taken where it counts; else bytes."""
    timed = next((line for line in report.lines if line.what.startswith(LATENCY) and line.plain), None)
    if timed is None or timed.plain is None or not all(one.latency_ms for one in report.front):
        plain, bound = float(report.plain_bytes), size_bound(report)
        return Cost("size of the file", "size", plain, bound, lambda one: float(one.size_bytes), size_text)
    limit = limit_of(report, "latency")
    return Cost(
        timed.what.split(",")[0], "time", MICROSECONDS * timed.plain,
        None if limit is None else Bound(MICROSECONDS * limit.value, limit.text),
        lambda one: MICROSECONDS * (one.latency_ms or 0.0), lambda value: time_text(value / MICROSECONDS),
    )  # fmt: skip
