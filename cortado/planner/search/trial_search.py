"""Trial search: knobs of a recipe are searched by trials, for what no price in nats can see: rates, epochs, widths, structure.

The tree-structured Parzen estimator (Bergstra, Bardenet, Bengio and Kegl, 2011), with several objectives and under limits as
Optuna has it. Each trial is a run of compress in a folder of its own, judged on validation data.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from cortado import quantities as units
from cortado.brought import accept
from cortado.devices import on_cpu
from cortado.engine.compress import compress
from cortado.engine.fingerprints import json_data, picture, sum_of_data
from cortado.errors import REFUSALS, BadFile, BadNetwork, BadValue, comes_from_system
from cortado.file.whole import check_writable, write_whole
from cortado.planner.search.front import tried as row_of
from cortado.planner.search.ranges import Ranged, read_ranged
from cortado.planner.search.study import Drawn, Study
from cortado.planner.search.trials import MINIMISE
from cortado.progress import Progress, quiet
from cortado.report.report import Report
from cortado.runtimes.speed import speed_wanted
from cortado.task.disjoint import check_disjoint
from cortado.task.limits import Limit, check_unit, read_limits
from cortado.task.task import Task

TRIALS = 30
"""When neither a number nor a time is given."""
NOTE = "trial.json"
PAUSE = 0.2
"""Seconds between two looks at trials of other processes."""


@dataclass(frozen=True)
class Attempt:
    """One trial: the values drawn, the recipe, bytes of its file, score on validation data, milliseconds where it was timed.

    `over` says by what share each limit was exceeded there, 0 or less where it was kept; `said` why it was refused.
    """

    number: int
    point: dict[str, Any]
    recipe: dict[str, Any]
    size_bytes: int = 0
    score: float = math.nan
    latency_ms: float | None = None
    over: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    said: str = ""

    @property
    def keeps_all(self) -> bool:
        return not self.said and all(amount <= 0 for amount in self.over.values())

    def cost(self, by: str) -> float:
        """Bytes, or milliseconds where these are made small."""
        if by != "latency":
            return self.size_bytes
        return math.inf if self.latency_ms is None else self.latency_ms


@dataclass(frozen=True)
class Found:
    """The best network, its report with the test result, every trial, and the front: of the trials that keep all limits (of
    all, where none does) those than which none is both cheaper and better."""

    network: nn.Module
    report: Report
    trials: tuple[Attempt, ...]
    front: tuple[Attempt, ...]
    best: Attempt

    def text(self) -> str:
        """Every trial for people, smallest first; a star marks the front."""
        unit, timed = self.report.metric_unit, any(one.latency_ms is not None for one in self.trials)
        latency = f"{'latency':>10}" if timed else ""
        lines = [f"{'trial':<8}{'file':>10}{latency}{'score on validation data':>24}   limits    knobs"]
        for one in sorted(self.trials, key=lambda one: (bool(one.said), one.size_bytes)):
            knobs = ", ".join(
                f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in one.point.items()
            )
            if one.said:
                lines.append(f"{one.number:03}     refused: {one.said} ({knobs})")
                continue
            mark = "*" if one in self.front else ""
            took = f"{units.time_text(one.latency_ms):>10}" if one.latency_ms is not None else " " * 10 * timed
            kept = "kept" if one.keeps_all else "missed"
            taken = "  <- taken" if one is self.best else ""
            lines.append(
                f"{f'{one.number:03}{mark}':<8}{units.size_text(one.size_bytes):>10}{took}{f'{one.score:.2f} {unit}':>24}"
                f"   {kept:<8}  {knobs}{taken}"
            )
        return "\n".join(lines)


def search(
    network: nn.Module,
    task: Task,
    recipe: Any,
    limits: Sequence[str] = (),
    *,
    trials: int | None = None,
    time_limit: str | None = None,
    minimise: str = "size",
    folder: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
    runtimes: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    threads: int = 1,
) -> Found:
    """The best of many trials of `recipe`, in which some knobs lie in ranges (see cortado.planner.search.ranges).

    Without limits, size (or latency, as `minimise` says) and score are searched at once, and the best score is taken, the
    smallest file among equals. A limit of size or latency alone: the best score within it. A limit of the score: the least size
    (or latency) that keeps it. `minimise` "loss": the best score. `trials` in all; new ones begin as long as `time_limit` ("30
    min") lasts. Each trial is kept in `folder`; with `resume` the study that is there goes on, killed trials too, and several
    processes may do so at once. One process alone gives the same trials from the same task.seed, interrupted or not. Latency is
    taken in the first of `runtimes`, or where its limit says: one process at a time. All is judged on validation data; the
    test data's for the best one. Raises BadRecipe, BadValue, MissingPackage where Optuna is missing, and what compress raises.
    >>> found = cortado.search(net, task, "quantize/weights bits=2..8", ["score >= -1 %"], trials=8, folder="runs/search")
    """
    accept(network, "search")
    read_as, ranged = read_limits(limits), read_ranged(recipe)
    speed_wanted(runtimes, read_as, batches, threads)
    check_unit(read_as, task.metric)
    check_disjoint(task)
    made = TrialSearch(
        on_cpu(network), task, ranged, read_as, minimise, Path(folder), progress or quiet(), tuple(runtimes), threads
    )
    made.check(trials, resume)
    seconds = None if time_limit is None else units.read(time_limit, "time") / 1000
    made.run(TRIALS if trials is None and time_limit is None else trials, seconds)
    tried = made.tried()
    best = made.best(tried)
    small, report = compress(
        made.network, task, best.recipe, limits=limits, folder=made.study.folder_of(best.number), resume=True,
        progress=made.progress, runtimes=runtimes, batches=batches, threads=threads,
    )  # fmt: skip
    report = replace(report, front=tuple(row_of(one, one is best) for one in tried if not one.said))
    return Found(small, report, tried, front(tried, made.cheap, made.sign), best)


@dataclass
class TrialSearch:
    """One process at a search."""

    network: nn.Module
    task: Task
    ranged: Ranged
    limits: tuple[Limit, ...]
    minimise: str
    folder: Path
    progress: Progress
    runtimes: tuple[str, ...] = ()
    threads: int = 1

    def __post_init__(self) -> None:
        self.sign = 1 if self.task.metric.higher_is_better else -1
        kinds = {limit.what for limit in self.limits}
        self.cheap = self.minimise if self.minimise != "loss" else "size"
        self.objectives: tuple[str, ...] = (self.cheap, "score")
        if self.minimise == "loss" or (kinds and "score" not in kinds):
            self.objectives = ("score",)
        elif kinds:
            self.objectives = (self.cheap,)
        self.timed = "latency" in kinds or self.cheap == "latency"

    def check(self, trials: int | None, resume: bool) -> None:
        """Refuses in words what cannot be searched; then begins or joins the study."""
        if self.minimise not in MINIMISE or (trials is not None and trials < 1):
            raise BadValue(
                f"search: minimise must be one of {', '.join(MINIMISE)} and trials 1 or more, got {self.minimise!r} and {trials}."
            )
        if self.timed and not self.runtimes and not any(limit.runtime for limit in self.limits):
            raise BadValue("search: latency is measured in a runtime. Say in which: --measure-in onnxruntime.")
        check_writable(self.folder, "search")
        if not resume and (self.folder / "study.journal").exists():
            raise BadValue(f"search: {self.folder} holds trials already. Add --resume, or choose another folder.")
        directions = ["minimize" if one != "score" or self.sign < 0 else "maximize" for one in self.objectives]
        self.study = Study(self.folder, self.ranged.ranges, directions, self.question(), self.task.seed)

    def question(self) -> dict[str, Any]:
        """What is searched for, by parts."""
        task = self.task
        data = b"".join(sum_of_data(part) for part in (task.train, task.validation, task.calibration))
        return {
            "recipe": json.dumps([json_data(self.ranged.as_data()), self.ranged.head.get("match_moments", True)]),
            "goal": json.dumps([sorted(limit.text for limit in self.limits), self.minimise, self.runtimes if self.timed else ()]),
            "network": picture(self.network)[0].hex(), "task": f"{task.name} {task.seed} {task.batch} {data.hex()}",
        }  # fmt: skip

    def run(self, most: int | None, seconds: float | None) -> None:
        """Trials until there are enough, or time is up; then those that others still have under way are waited for."""
        start, waited = time.perf_counter(), set[int]()
        with self.progress.bar("trials", most or 0) as bar:
            bar.advance(len(self.study.ended()))
            while True:
                late = seconds is not None and time.perf_counter() - start >= seconds and bool(self.study.ended())
                drawn = None if late else self.study.draw(most)
                if drawn is not None:
                    with drawn.attached:  # the lock ends with the trial, however that ends
                        self.carry_out(drawn)
                    bar.advance()
                    continue
                waited = waited & self.study.running() if waited else self.study.running()
                if late or not waited:
                    return
                time.sleep(PAUSE)

    def carry_out(self, drawn: Drawn) -> Attempt:
        """Run the recipe at a point, on validation data alone, note what came out, and tell the study."""
        start = time.perf_counter()
        point = {one.name: one.value(drawn.point[one.name]) for one in self.ranged.ranges}
        done = Attempt(drawn.turn, point, {})
        try:
            recipe = self.ranged.at(drawn.point)
            done = replace(done, recipe=json_data(recipe.as_data()))
            blind = self.task.for_trial()
            _, report = compress(
                self.network, blind, recipe, limits=[limit.text for limit in self.limits],
                folder=drawn.folder, resume=True, progress=self.progress,
                runtimes=self.runtimes if self.timed else (), threads=self.threads,
            )  # fmt: skip
            done = self.measured(done, report)
        except REFUSALS as error:
            if comes_from_system(error):
                raise
            done = replace(done, said=str(error))
        done = replace(done, seconds=time.perf_counter() - start)
        write_whole(drawn.folder / NOTE, json.dumps(asdict(done), indent=1).encode())
        values = [done.score if one == "score" else done.cost(self.cheap) for one in self.objectives]
        self.study.tell(drawn, None if done.said else values, done.over)
        return done

    def measured(self, done: Attempt, report: Report) -> Attempt:
        """The trial with what its report has."""
        last, latency = report.stages[-1], None
        if self.timed:
            runtime = next((limit.runtime for limit in self.limits if limit.runtime), "") or self.runtimes[0]
            latency = next(line.compressed for line in report.lines if line.what.startswith(f"latency in {runtime}, "))
        if not math.isfinite(last.score):
            return replace(done, said=f"the score is {last.score}")
        over = {}
        for limit in self.limits:
            if limit.what == "score":
                original = report.test.original
                wanted = self.sign * original + limit.value if limit.relative else self.sign * limit.value
                over[limit.text] = (wanted - self.sign * last.score) / max(abs(original), 1e-9)
            else:
                found = last.size_bytes if limit.what == "size" else latency
                assert found is not None
                over[limit.text] = found / limit.value - 1
        return replace(done, size_bytes=last.size_bytes, score=last.score, latency_ms=latency, over=over)

    def tried(self) -> tuple[Attempt, ...]:
        """All finished trials, in order.  Raises BadFile for a note that is damaged."""
        found = []
        for number in self.study.ended():
            path = self.study.folder_of(number) / NOTE
            try:
                found.append(Attempt(**json.loads(path.read_text(encoding="utf8"))))
            except (OSError, ValueError, TypeError) as error:
                raise BadFile(f"search: {path} is damaged ({error}). Delete the folder and start again.") from error
        return tuple(found)

    def best(self, tried: Sequence[Attempt]) -> Attempt:
        """The best that keeps all limits; where none does, the one that exceeds them least.  Raises BadNetwork."""
        able = [one for one in tried if not one.said]
        if not able:
            raise BadNetwork(
                f"search: none of {len(tried)} trials could be carried out; the last one: {tried[-1].said} Change the ranges."
            )
        kept = [one for one in able if one.keeps_all]
        if kept and "score" not in self.objectives:
            return min(kept, key=lambda one: (one.cost(self.cheap), -self.sign * one.score, one.number))
        if kept:
            return min(kept, key=lambda one: (-self.sign * one.score, one.cost(self.cheap), one.number))
        return min(able, key=lambda one: (sum(max(0.0, more) for more in one.over.values()), one.number))


def front(tried: Sequence[Attempt], cheap: str, sign: int = 1) -> tuple[Attempt, ...]:
    """Those that keep all limits (all, where none does) than which none is both cheaper and better, cheapest first."""
    able = [one for one in tried if not one.said]
    able = [one for one in able if one.keeps_all] or able
    found: list[Attempt] = []
    for one in sorted(able, key=lambda one: (one.cost(cheap), -sign * one.score, one.number)):
        if not found or sign * one.score > sign * found[-1].score:
            found.append(one)
    return tuple(found)
