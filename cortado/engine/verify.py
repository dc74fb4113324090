"""Verify: measure a bundle on this machine and compare with its claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from cortado.engine.bundle import FILE, check_bundle
from cortado.engine.compress import shift_scores, test
from cortado.engine.job import read_job
from cortado.file.artifact import load
from cortado.machine import processor_name
from cortado.parts.part import Part
from cortado.report.pages.bounds import readable
from cortado.report.pages.words import quantity
from cortado.report.report import Report, read_report
from cortado.report.result_lines import shifted_name
from cortado.runtimes.measured import COMPRESSED, measure
from cortado.runtimes.runtime import Running, installed
from cortado.table import aligned
from cortado.task.measure import mean_score
from cortado.task.task import Task

ALIKE = 0.002
"""The share of samples that may differ: another processor sums in another order."""
TIMES_ALIKE = 1.25
"""The factor by which times on the same kind of processor may differ."""


@dataclass(frozen=True)
class Claim:
    """One claimed value and the value measured here; `agrees` is None if the two cannot be compared."""

    what: str
    unit: str
    claimed: float | None
    found: float | None
    agrees: bool | None


@dataclass(frozen=True)
class Verified:
    """All claims of a bundle."""

    folder: Path
    claims: tuple[Claim, ...]

    @property
    def agrees(self) -> bool:
        """Return whether no claim is contradicted."""
        return all(claim.agrees is not False for claim in self.claims)

    def text(self) -> str:
        """Return a table of the claims, and the outcome."""
        words = {True: "yes", False: "NO", None: "not compared"}
        rows: list[tuple[str, ...]] = [("", "claimed", "found here", "agrees")]
        for claim in self.claims:
            rows.append(
                (claim.what, *(quantity(one, claim.unit) for one in (claim.claimed, claim.found)), words[claim.agrees])
            )
        missed = [claim.what for claim in self.claims if claim.agrees is False]
        end = f"{self.folder}: not confirmed: {', '.join(missed)}." if missed else f"{self.folder}: confirmed."
        return "\n".join([aligned(rows, "<>><"), "", end])


def verify(
    folder: str | Path, job: str | None = None, forms: Sequence[type[Part]] = (), seconds: float = 5.0
) -> Verified:
    """Check a bundle's checksums, then measure its size, scores on the test data and times again.

    >>> cortado.verify("runs/latest").agrees
    True

    `job` names the job if the bundle does not include the original network's weights. Raises BadFile for a missing or
    altered file, BadNetwork if the original network is missing, MissingPackage for a timed runtime that is not installed.
    """
    folder = Path(folder)
    check_bundle(folder)
    report = read_report(folder / "report.json")
    made = read_job(job or str(folder), report.seed)
    task = made.make_task()
    original = made.original_again(task, folder)
    bundled = read_job(str(folder))
    small = load(folder / FILE, bundled.architecture, (*bundled.forms, *made.forms, *forms))
    claims = [size_claim(report, folder / FILE), *score_claims(report, original, small, task)]
    claims += file_claims(report, folder, task)
    if report.clocks:
        claims += runtime_claims(report, original, small, task, seconds)
    return Verified(folder, tuple(claims))


def size_claim(report: Report, file: Path) -> Claim:
    """Return the claim about the bytes of the coded file."""
    claimed, found = next(line.compressed for line in report.lines if line.unit == "B"), file.stat().st_size
    return Claim("size of the file", "B", claimed, found, claimed == found)


def score_claims(report: Report, original: nn.Module, small: nn.Module, task: Task) -> list[Claim]:
    """Return the claims about both networks' scores on the test data, and under the shifts of limits, in PyTorch."""
    limited = [limit.shift for line in report.lines if (limit := readable(line.limit)) is not None and limit.shift]
    again = shift_scores(original, small, task, limited)
    names = {"": task.metric.name, **{name: shifted_name(task, name) for name in limited}}
    claims = []
    for shift, name in names.items():
        before, now = (report.shifts[shift], again[shift]) if shift else (report.test, test(original, small, task))
        pairs = (("original", before.original, now.original), ("compressed", before.compressed, now.compressed))
        claims += [
            Claim(f"{name}, {what}", task.metric.unit, claimed, found, alike(claimed, found, task.metric.scale))
            for what, claimed, found in pairs
        ]
    return claims


def file_claims(report: Report, folder: Path, task: Task) -> list[Claim]:
    """Return the claims about the scores of the bundle's own runtime files on the test data."""
    claims = []
    for row in report.exports:
        (runtime,) = installed([row.runtime])
        file = folder / runtime.folder_name() / f"net{runtime.suffix}"
        if row.score is None or not file.exists():
            continue
        found = mean_score(Running(runtime.load(file, 1)), task.test, task.metric)
        same = alike(row.score, found, task.metric.scale)
        claims.append(Claim(f"{task.metric.name}, {row.runtime}/{file.name}", task.metric.unit, row.score, found, same))
    return claims


def runtime_claims(report: Report, original: nn.Module, small: nn.Module, task: Task, seconds: float) -> list[Claim]:
    """Return the claims about newly exported files: scores and, on the same kind of processor, times."""
    exports, clocks = measure(
        original, small, task, installed([row.runtime for row in report.exports]),
        batches=[clock.batch for clock in report.clocks], threads=report.clocks[0].threads, seconds=seconds,
    )  # fmt: skip
    claims = []
    for before, row in zip(report.exports, exports, strict=True):
        same = None
        if before.score is not None and row.score is not None:
            same = alike(before.score, row.score, task.metric.scale)
        claims.append(
            Claim(f"{task.metric.name}, file for {row.runtime}", task.metric.unit, before.score, row.score, same)
        )
    here = report.environment.get("processor") == processor_name()
    for old, new in zip(report.clocks, clocks, strict=True):
        taken = {one.runtime: one.median_ms for one in new.times if one.network == COMPRESSED}
        for one in (one for one in old.times if one.network == COMPRESSED and one.runtime in taken):
            close = 1 / TIMES_ALIKE <= taken[one.runtime] / one.median_ms <= TIMES_ALIKE
            what = f"latency in {one.runtime}, batch {old.batch}"
            same = close if here and not (old.noisy or new.noisy) else None
            claims.append(Claim(what, "ms", one.median_ms, taken[one.runtime], same))
    return claims


def alike(claimed: float, found: float, scale: float) -> bool:
    """Return whether two scores are equal up to a few samples."""
    return abs(claimed - found) <= ALIKE * max(scale, abs(claimed))
