"""Limits: the bounds on sizes, score and latency for a compressed network."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cortado import quantities as units
from cortado.errors import BadValue
from cortado.task.metric import Metric

OWNER = r"\w[\w.]*(?::[A-Za-z_]\w*)?"
PATTERN = re.compile(
    rf"^\s*(size|score|latency|multiply[-_ ]adds)(?:\s+of\s+({OWNER}))?\s*(<=|>=)\s*(.+?)\s*"
    rf"(?:\bunder\s+({OWNER})|(?:\bin\s+|@\s*)({OWNER})(?:\s*:\s*(\d+)\s*threads?)?)?\s*$"
)
MULTIPLY_ADDS = "multiply_adds"
KINDS = {"size": "size", "latency": "time", MULTIPLY_ADDS: "count"}
"""The kind of quantity that each limit but a score's is."""


@dataclass(frozen=True)
class Limit:
    """One limit.  `what` is size or file (bytes of the coded file, of a runtime's file, at most), latency (milliseconds at
    batch size 1, at most), multiply_adds (of one sample, at most) or score (at least).

    `shift`: of a score, the shift of task/shifts.py under which the samples are scored, "" for the samples as they are.
    `runtime` is whose file it is, or where latency is measured, "" for the first runtime; `threads` 0 for those of the
    measurement.
    `relative`: relative to the original score. `unit`: "%" if the score was written so. `share`: a relative score's value is in
    % of the original score, as where the metric itself is not in %.
    """

    text: str
    what: str
    value: float
    relative: bool = False
    runtime: str = ""
    threads: int = 0
    unit: str = ""
    shift: str = ""
    share: bool = False

    def change(self, original: float) -> float:
        """Return by what a relative score may differ from the original's, in the metric's unit; below 0 for a loss."""
        return self.value * abs(original) / 100 if self.share else self.value

    def kept(self, measured: float, original: float) -> bool:
        """Return whether a measured value is within the limit."""
        if self.what != "score":
            return measured <= self.value
        return measured >= (original + self.change(original) if self.relative else self.value)


def read_limit(text: str) -> Limit:
    """Parse "size <= 100 KB", "size of onnxruntime <= 3 MB", "multiply-adds <= 40 M", "latency <= 3 ms in onnxruntime" (also
    "latency<=3ms@onnxruntime:1thread"), "score >= -0.5 %" (with a sign: against the original network, see in_unit) or
    "score >= -1 % under jpeg".

    Raises BadValue for anything else.
    """
    match = PATTERN.match(text)
    if match is None:
        raise BadValue(
            f'limit: {text!r} is not a limit. Write, for example, "size <= 100 KB", "size of onnxruntime <= 3 MB", '
            '"score >= -0.5 %", "score >= -1 % under jpeg", "multiply-adds <= 40 M" or "latency <= 3 ms in onnxruntime".'
        )
    what, owner, sign, value, shift, runtime, threads = match.groups()
    what = MULTIPLY_ADDS if what.startswith("multiply") else what
    if owner and what != "size":
        raise BadValue(
            f"limit: {text!r} asks for the {what} of a runtime. Only its file has a size: size of {owner} <= 3 MB."
        )
    if runtime and what != "latency":
        raise BadValue(f"limit: {text!r} names a runtime, but {what} does not depend on one. Leave it out.")
    if shift and what != "score":
        raise BadValue(
            f"limit: {text!r} names a shift, but {what} does not depend on one. Write score >= -1 % under {shift}."
        )
    if (what != "score") != (sign == "<="):
        wanted = "score >= ..." if what == "score" else f"{what} <= ..."
        raise BadValue(f"limit: {text!r} has the wrong direction. Write {wanted}.")
    if what != "score":
        most = units.read_quantity(value, KINDS[what])
        if most <= 0:
            unit = {"size": "bytes", "latency": "ms"}.get(what, "multiply-adds")
            raise BadValue(f"limit: {text!r} asks for {most:g} {unit}. Write more than 0.")
        if threads and int(threads) < 1:
            raise BadValue(f"limit: {text!r} asks for {threads} threads. Write 1 or more, or leave it out.")
        kind = "file" if owner else what
        return Limit(text.strip(), kind, most, runtime=owner or runtime or "", threads=int(threads or 0))
    number, unit = units.number_and_unit(value)
    if unit not in ("", "%"):
        raise BadValue(f"limit: {text!r} has a unit that no score has, got {unit!r}. Write, for example, -0.5 %.")
    if unit == "%" and number > 100:
        raise BadValue(f"limit: {text!r} is above 100 %, which no score reaches. Write, for example, score >= 90 %.")
    return Limit(text.strip(), "score", number, relative=value.strip()[0] in "+-", unit=unit, shift=shift or "")


def limit_of_kind(limits: Sequence[Limit], what: str) -> Limit | None:
    """Return the limit of a kind; of several scores the one on samples as they are, else the first under a shift."""
    return min((one for one in limits if one.what == what), key=lambda one: bool(one.shift), default=None)


def in_unit(limit: Limit, unit: str) -> Limit:
    """Return a limit as it holds for a metric in this unit: of one that is not in %, a relative score in % is a share.

    "score >= -1 %" is a point of accuracy, and a hundredth of a perplexity or of an error in mm.
    """
    return replace(limit, share=limit.relative and limit.unit == "%" != unit)


def limits_of_metric(limits: Sequence[Limit], metric: Metric) -> tuple[Limit, ...]:
    """Return the limits as they hold for a metric.  Raises BadValue for a score in %, not relative, if it is in another unit."""
    for limit in limits:
        if limit.unit and not limit.relative and metric.unit != limit.unit:
            raise BadValue(
                f"limit: {limit.text!r} is in {limit.unit}, but the metric of this task, {metric.name}, is in "
                f"{metric.unit or 'no unit'}. Write the number without a unit, or with a sign: -1 % is a share of the original's."
            )
    return tuple(in_unit(limit, metric.unit) for limit in limits)


def read_limits(texts: Sequence[str]) -> tuple[Limit, ...]:
    """Parse all limits.  Raises BadValue for two of the same kind."""
    limits = tuple(read_limit(text) for text in texts)
    kinds = [f"{limit.what} under {limit.shift}" if limit.shift else limit.what for limit in limits]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise BadValue(f"limit: {kind} is limited twice. Keep one of them.")
    return limits
