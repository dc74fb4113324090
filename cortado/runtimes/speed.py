"""Speed: the runtimes of a run, and their part of its report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from cortado.errors import BadValue, CortadoError
from cortado.lowering.lower import dense
from cortado.network.profile.profile import profile
from cortado.parts.blocks.rows import chooses_rows
from cortado.progress import Progress
from cortado.report.report import Clock, Exported, Line, Report, Stage
from cortado.runtimes.measured import COMPRESSED, measure
from cortado.runtimes.runtime import Runtime, installed
from cortado.runtimes.stopwatch import Stopwatch
from cortado.runtimes.timing import ORIGINAL, check_load
from cortado.task.limits import Limit
from cortado.task.task import Task

SAMPLES = 256
LEAST_SAME = 0.98
"""Share of samples with PyTorch's top-1 below which a file gets a warning."""


@dataclass(frozen=True)
class Speed:
    """Where and how to time; without runtimes, nothing is timed."""

    runtimes: tuple[Runtime, ...] = ()
    batches: tuple[int, ...] = (1,)
    threads: int = 1
    seconds: float = 5.0


def speed_wanted(
    runtimes: Sequence[str], limits: Sequence[Limit], batches: Sequence[int] = (1,), threads: int = 1
) -> Speed:
    """Return the speed options for the named runtimes and those that limits name: in latency, and by the size of a file.

    Raises BadValue for a latency limit without a runtime, MissingPackage for a runtime that is not installed.
    """
    check_load("timing", batches, threads)
    latency = next((limit for limit in limits if limit.what == "latency"), None)
    limited = [limit.runtime for limit in limits if limit.what in ("latency", "file") and limit.runtime]
    names = list(dict.fromkeys([*runtimes, *limited]))
    if latency is not None:
        if not names:
            raise BadValue(
                f"limit: {latency.text!r} names no runtime. Write 'latency <= ... in onnxruntime', or pass "
                "--measure-in onnxruntime, in Python runtimes=('onnxruntime',)."
            )
        batches, threads = (1, *(batch for batch in batches if batch != 1)), latency.threads or threads
        check_load("timing", batches, threads)
    return Speed(tuple(installed(names)), tuple(batches), threads)


def with_speed(
    report: Report, original: nn.Module, small: nn.Module, task: Task, speed: Speed,
    limits: Sequence[Limit], progress: Progress | None = None, earlier: Sequence[Callable[[], nn.Module]] = (),
    folder: Path | None = None,
) -> Report:  # fmt: skip
    """Return the report with files, scores, times and latency limits of the runtimes; unchanged without runtimes.

    `earlier` return the networks after each stage but the last; the measured files stay in `folder`.
    """
    if not speed.runtimes:
        return report
    exports, clocks = measure(
        original, small, task, speed.runtimes,
        batches=speed.batches, threads=speed.threads, seconds=speed.seconds, progress=progress,
        folder=folder,
    )  # fmt: skip
    versions = {runtime.name(): runtime.version() for runtime in speed.runtimes}
    lines = latency_lines(clocks[0], speed, limits)
    return replace(
        report, exports=exports, clocks=clocks, lines=(*report.lines, *file_lines(exports, limits), *lines),
        stages=stages_in_time(report.stages, lines[0], earlier, original, task, speed),
        warnings=(*report.warnings, *disagreeing(exports), *busy(clocks)),
        multiply_adds=(multiply_adds_a_sample(original, task), multiply_adds_a_sample(small, task)),
        environment={**report.environment, **versions},
    )  # fmt: skip


def stages_in_time(
    stages: Sequence[Stage],
    line: Line,
    earlier: Sequence[Callable[[], nn.Module]],
    original: nn.Module,
    task: Task,
    speed: Speed,
) -> tuple[Stage, ...]:
    """Return the stages with their times in the first runtime, each interleaved with the original; the last from `line`."""
    assert line.original is not None
    times: list[float | None] = []
    watch: Stopwatch | None = None
    for network in earlier:
        try:
            watch = watch or Stopwatch(original, task, speed.runtimes[0], speed.threads, batch=speed.batches[0])
            times.append(line.original * watch.ms(network()) / watch.original_ms)
        except CortadoError:
            # An intermediate network need not run there.
            times.append(None)
    times += [None] * (len(stages) - 1 - len(times))
    return tuple(replace(stage, latency_ms=ms) for stage, ms in zip(stages, [*times, line.compressed], strict=True))


def file_lines(exports: Sequence[Exported], limits: Sequence[Limit]) -> list[Line]:
    """Return a line for each runtime's file whose size is limited."""
    by_name = {limit.runtime: limit for limit in limits if limit.what == "file"}
    rows = [(row, by_name[row.runtime]) for row in exports if row.runtime in by_name]
    return [
        Line(
            row.file_line, "B", row.original_bytes, row.size_bytes, limit.text,
            limit.kept(row.size_bytes, row.original_bytes or 0),
        )
        for row, limit in rows
    ]  # fmt: skip


def latency_lines(clock: Clock, speed: Speed, limits: Sequence[Limit]) -> list[Line]:
    """Return a line for each runtime: the median of the first batch size, and its limit."""
    limit = next((limit for limit in limits if limit.what == "latency"), None)
    limited = None if limit is None else limit.runtime or speed.runtimes[0].name()
    by_name = {(row.network, row.runtime): row.median_ms for row in clock.times}
    lines = []
    for runtime in speed.runtimes:
        name = runtime.name()
        before, after = by_name[ORIGINAL, name], by_name[COMPRESSED, name]
        here = limit if name == limited else None
        what = f"latency in {name}, batch {clock.batch}, threads {clock.threads}"
        kept = None if here is None else here.kept(after, before)
        lines.append(Line(what, "ms", before, after, here.text if here else "", kept))
    return lines


def disagreeing(exports: Sequence[Exported]) -> list[str]:
    """Return a warning for each file whose top-1 differs from PyTorch's too often."""
    return [
        f"{row.runtime}: its file has the same top-1 as PyTorch on only {100 * row.same_top:.1f} % of {row.samples} samples. "
        "See where the error begins: cortado explain."
        for row in exports
        if row.same_top is not None and row.same_top < LEAST_SAME
    ]


def busy(clocks: Sequence[Clock]) -> list[str]:
    """Return a warning for each noisy clock."""
    return [
        f"timing, batch {clock.batch}: the machine was busy. The original network against itself in {clock.control} gave "
        f"{clock.again.median:.2f} (quartiles {clock.again.low:.2f} to {clock.again.high:.2f}; 1 on a quiet machine), or a "
        "time varied by more than 30 % between its quartiles. Do not trust these ratios; measure again on a quiet machine."
        for clock in clocks
        if clock.noisy
    ]


def multiply_adds_a_sample(network: nn.Module, task: Task) -> float | None:
    """Return the multiply-adds for one sample, low-rank layers by their factors; None if unknown.

    Where paths depend on the input, those of the mean sample, of the first ones in the test data.
    """
    some = next(iter(task.test.batches(SAMPLES)))[0] if chooses_rows(network) else None
    table = profile(dense(network), task.example, data=some)
    total = table.total("multiply_adds") if some is None else table.expected_multiply_adds()
    return total.value if total.exact else None
