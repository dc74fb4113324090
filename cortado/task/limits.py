"""Budget: the limits that a compressed network has to keep."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cortado import quantities as units
from cortado.errors import BadValue
from cortado.task.task import Metric

PATTERN = re.compile(
    r"^\s*(size|score|latency)\s*(<=|>=)\s*(.+?)\s*(?:(?:\bin\s+|@\s*)(\w+)(?:\s*:\s*(\d+)\s*threads?)?)?\s*$"
)


@dataclass(frozen=True)
class Limit:
    """One limit.  `what` is size (bytes, at most), latency (milliseconds of a batch of one, at most; `runtime` is where, ""
    the first one that is measured, with so many `threads`, 0 as many as are measured with) or score (at least);
    `relative`: counted from the original score; `unit`: "%" where the score's was written as such."""

    text: str
    what: str
    value: float
    relative: bool = False
    runtime: str = ""
    threads: int = 0
    unit: str = ""

    def kept(self, measured: float, original: float) -> bool:
        """Whether a measured value keeps it."""
        if self.what in ("size", "latency"):
            return measured <= self.value
        return measured >= (original + self.value if self.relative else self.value)


def read_limit(text: str) -> Limit:
    """A limit from "size <= 100 KB", "score >= -0.5 %" (with a sign: points against the original network) or "latency <= 3 ms
    in onnxruntime", also "latency<=3ms@onnxruntime:1thread".

    Raises BadValue for anything else.
    """
    match = PATTERN.match(text)
    if match is None:
        raise BadValue(
            f'limit: {text!r} is not a limit. Write, for example, "size <= 100 KB", "score >= -0.5 %" or '
            '"latency <= 3 ms in onnxruntime".'
        )
    what, sign, value, runtime, threads = match.groups()
    if runtime and what != "latency":
        raise BadValue(f"limit: {text!r} names a runtime, but a {what} is not measured in one. Leave it out.")
    if (what != "score") != (sign == "<="):
        wanted = "score >= ..." if what == "score" else f"{what} <= ..."
        raise BadValue(f"limit: {text!r} points the wrong way. Write {wanted}.")
    if what != "score":
        most = units.read_quantity(value, "size" if what == "size" else "time")
        if most <= 0:
            raise BadValue(
                f"limit: {text!r} asks for {most:g} {'bytes' if what == 'size' else 'ms'}. It is more than 0."
            )
        if threads and int(threads) < 1:
            raise BadValue(f"limit: {text!r} is measured with {threads} threads. Write 1 or more, or leave it out.")
        return Limit(text.strip(), what, most, runtime=runtime or "", threads=int(threads or 0))
    number, unit = units.number_and_unit(value)
    if unit not in ("", "%"):
        raise BadValue(
            f"limit: {text!r} has a unit that a score does not have, got {unit!r}. Write, for example, -0.5 %."
        )
    if unit == "%" and number > 100:
        raise BadValue(f"limit: {text!r} is more than a score in % can be. Write, for example, score >= 90 %.")
    return Limit(text.strip(), "score", number, relative=value.strip()[0] in "+-", unit=unit)


def check_unit(limits: Sequence[Limit], score: Metric) -> None:
    """Raises BadValue for a limit in % where the task's score has another unit: a share of it is not meant."""
    for limit in limits:
        if limit.unit and score.unit != limit.unit:
            raise BadValue(
                f"limit: {limit.text!r} is in {limit.unit}, but the score of this task, {score.name}, is in "
                f"{score.unit or 'no unit'}. Write the number alone: it counts in the score's own unit."
            )


def read_limits(texts: Sequence[str]) -> tuple[Limit, ...]:
    """All limits; one of a kind.  Raises BadValue for two of a kind."""
    limits = tuple(read_limit(text) for text in texts)
    kinds = [limit.what for limit in limits]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise BadValue(f"limit: {kind} is limited twice. Keep the one you mean.")
    return limits
