"""Goal: limits in; plans, recovered as far as the time allows, are tried until the best network that keeps them is found."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from cortado import units
from cortado.budget import Limit, read_limits
from cortado.compress import compress
from cortado.errors import BadFile, BadValue
from cortado.evaluating import evaluating
from cortado.file.whole import check_writable, make_folder, write_whole
from cortado.fingerprints import plain_data
from cortado.measure import outputs_of
from cortado.planner.forecast import Forecast, forecast
from cortado.planner.outlook import Outlook
from cortado.progress import Progress, quiet
from cortado.recipe import Recipe, read
from cortado.report import Report
from cortado.runtimes.speed import speed_wanted
from cortado.task import Task
from cortado.tasks.disjoint import check_apart

MINIMISE = ("size", "loss")
TRIALS = "trials.json"
SHRINK, CLOSE = 0.75, 1.06
"""How much smaller the next trial is after one that kept its limits; sizes nearer than this factor are not told apart."""
MOST_EPOCHS, SHARE_OF_TIME = 20.0, 0.25
"""Of the recovery of one trial."""


@dataclass(frozen=True)
class Trial:
    """A recipe that was tried: bytes of its file, score on choice data, and whether each limit was kept there."""

    recipe: dict[str, Any]
    size_bytes: int = 0
    score: float = 0.0
    met: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def keeps_all(self) -> bool:
        return all(self.met.values())

    @property
    def trained(self) -> bool:
        return any("tune" in stage for stage in self.recipe["stages"])


@dataclass(frozen=True)
class Reached:
    """The best network, its report with the verdict, and every trial; `advice` says what binds where a limit was missed."""

    network: nn.Module
    report: Report
    trials: tuple[Trial, ...]
    best: Trial
    advice: str = ""

    def text(self) -> str:
        """The front for people: every trial, smallest first, and what binds where a limit was missed."""
        unit = self.report.score_unit
        lines = [f"{'tried':<24}{'file':>10}{'score on choice data':>24}   limits there"]
        for one in sorted(self.trials, key=lambda one: one.size_bytes):
            epochs = sum(stage["tune"]["epochs"] for stage in one.recipe["stages"] if "tune" in stage)
            what = f"plan, {epochs:g} epochs" if epochs else "plan, nothing trained"
            kept = "kept" if one.keeps_all else "missed"
            best = "  <- taken" if one is self.best else ""
            lines.append(
                f"{what:<24}{units.size_text(one.size_bytes):>10}{f'{one.score:.2f} {unit}':>24}   {kept}{best}"
            )
        return "\n".join([*lines, *([f"\n{self.advice}"] if self.advice else [])])


def reach(
    network: nn.Module,
    task: Task,
    limits: Sequence[str],
    *,
    minimise: str = "size",
    budget: str = "30 min",
    folder: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
    runtimes: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    threads: int = 1,
) -> Reached:
    """The smallest network (`minimise` "size"), or the one that loses least ("loss"), that keeps `limits`.

    Plans come from the forecast, and are recovered with the network itself as teacher where that helps; each trial is
    kept in `folder`, and `resume` goes on with them. All are compared on the task's choice data; the verdict's are used
    once, for the best. Trials begin as long as `budget` ("30 min") lasts. `runtimes`, `batches` and `threads` are as in
    compress, for the best. Raises BadValue for limits or a budget that say nothing, and what compress raises.
    """
    read_as = read_limits(limits)
    check_goal(read_as, minimise)
    speed_wanted(runtimes, read_as, batches, threads)
    check_writable(Path(folder), "compress")
    check_apart(task)
    seconds = units.read(budget, "time") / 1000
    search = Search(network, task, read_as, minimise, seconds, Path(folder), progress or quiet())
    search.run(resume)
    best = search.best()
    where = search.folder_of(search.trials.index(best))
    small, report = compress(
        network,
        task,
        best.recipe,
        limits=limits,
        folder=where,
        resume=True,
        progress=search.progress,
        runtimes=runtimes,
        batches=batches,
        threads=threads,
    )
    return Reached(small, report, tuple(search.trials), best, "" if report.met else search.advice(best))


def check_goal(limits: Sequence[Limit], minimise: str) -> None:
    """Raises BadValue for limits under which there is nothing to make small, or that are not planned for."""
    kinds = {limit.what for limit in limits}
    if minimise not in MINIMISE or not limits:
        raise BadValue(
            f"goal: minimise must be one of {', '.join(MINIMISE)} under one limit or more, got {minimise!r} and "
            f"{len(limits)} limits. Write, for example, --limit 'score >= -0.5 %' --minimise size."
        )
    if "latency" in kinds:
        raise BadValue(
            "goal: a limit of latency is not planned for yet, as plans are of weights alone. Give a recipe that makes "
            "layers narrower or rounds signals too: --recipe 'prune/channels keep=0.5 | tune epochs=10'."
        )
    if minimise == "loss" and "size" not in kinds:
        raise BadValue("goal: the least loss is the plain network's. Limit the size too: --limit 'size <= 100 KB'.")


@dataclass
class Search:
    """The trials of one goal."""

    network: nn.Module
    task: Task
    limits: tuple[Limit, ...]
    minimise: str
    seconds: float
    folder: Path
    progress: Progress
    trials: list[Trial] = field(default_factory=list)

    def run(self, resume: bool) -> None:
        """Trials until time or ideas are at an end; those of an interrupted run come first."""
        begun = self.begun() if resume else []
        start = time.perf_counter() - sum(one.seconds for one in begun)
        for number, one in enumerate(begun):
            self.tried(one.recipe, begun[number:])
        found = forecast(self.network, self.network, self.task, progress=self.progress)
        epoch = self.seconds_of_epoch()
        while not self.trials or time.perf_counter() - start < self.seconds:
            left = self.seconds - (time.perf_counter() - start)
            recipe = self.next(found, epochs_for(min(left, SHARE_OF_TIME * self.seconds), epoch))
            if recipe is None:
                return
            self.tried(recipe.as_data())

    def next(self, found: Forecast, epochs: float) -> Recipe | None:
        """What to try next; None where nothing is left to try."""
        first = self.first_size(found)
        if not self.trials:
            return self.recipe(found, first, 0.0)
        if epochs <= 0:
            return None
        if self.minimise == "loss" or not self.limit("score"):
            return None if any(one.trained for one in self.trials) else self.recipe(found, first, epochs)
        good = [one.size_bytes for one in self.trials if one.keeps_all]
        bad = [one.size_bytes for one in self.trials if one.trained and not one.keeps_all]
        floor, lowest = found.sizes[0], max(bad, default=0)
        if not good:
            size = float(first) if not bad else max(bad) / SHRINK
        else:
            size = min(good) * SHRINK if not lowest else (min(good) * lowest) ** 0.5
        tried = [one.size_bytes for one in self.trials if one.trained]
        if good and (size < floor or min(good) / max(size, lowest) < CLOSE):
            return None
        if any(1 / CLOSE < size / one < CLOSE for one in tried) or size > found.sizes[1]:
            return None
        return self.recipe(found, size, epochs)

    def first_size(self, found: Forecast) -> float:
        """The limit of size, or the smallest file that is expected to keep the score without training."""
        size, score = self.limit("size"), self.limit("score")
        view = Outlook(found, 0, "", "")
        if score is not None and self.minimise == "size":
            allowed = -score.value if score.relative else found.sign * (found.score - score.value)
            best = view.smallest(max(allowed, 0.0))
            guess = found.sizes[1] if best is None else best.size_bytes
            return min(guess, size.value) if size is not None else guess
        return found.sizes[0] if size is None else size.value

    def limit(self, what: str) -> Limit | None:
        return next((limit for limit in self.limits if limit.what == what), None)

    def recipe(self, found: Forecast, size: float, epochs: float) -> Recipe | None:
        """The plan of this size, recovered for so many epochs; the smallest one there is where none is as small."""
        least, most = found.sizes
        plan = found.plan(min(max(size, least), most))
        if plan is None:
            return None
        stages = plan.recipe().stages
        tune = [{"tune": {"epochs": epochs, "rate": 1e-3, "teacher": 0.5}}] if epochs else []
        return Recipe((*stages, *read(tune).stages) if tune else stages, name="plan")

    def tried(self, recipe: dict[str, Any], begun: Sequence[Trial] = ()) -> Trial:
        """Run a recipe in its own folder, judged on choice data alone; `begun`: it and what follows in an interrupted run."""
        number, start = len(self.trials), time.perf_counter()
        begun = begun or [Trial(plain_data(recipe))]
        self.note([*self.trials, *begun])
        _, report = compress(
            self.network, self.task.for_trial(), recipe, limits=self.texts_of("size", "score"),
            folder=self.folder_of(number), resume=True, progress=self.progress,
        )  # fmt: skip
        met = {line.limit: bool(line.met) for line in report.lines if line.limit}
        last = report.stages[-1]
        spent = (begun[0].seconds, sum(stage.seconds for stage in report.stages), time.perf_counter() - start)
        trial = Trial(plain_data(recipe), last.size_bytes, last.score, met, max(spent))
        self.trials.append(trial)
        self.note([*self.trials, *begun[1:]])
        return trial

    def texts_of(self, *kinds: str) -> list[str]:
        return [limit.text for limit in self.limits if limit.what in kinds]

    def folder_of(self, number: int) -> Path:
        return self.folder / "trials" / f"{number + 1:02}"

    def note(self, trials: Sequence[Trial]) -> None:
        """Write down what was tried, and what is about to be."""
        make_folder(self.folder)
        write_whole(self.folder / TRIALS, json.dumps([asdict(one) for one in trials], indent=1).encode())

    def begun(self) -> list[Trial]:
        """The trials of an interrupted run, in order, finished or not.  Raises BadFile."""
        path = self.folder / TRIALS
        if not path.exists():
            return []
        try:
            return [Trial(**one) for one in json.loads(path.read_text(encoding="utf8"))]
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"goal: {path} is damaged ({error}). Delete the folder and start anew.") from error

    def best(self) -> Trial:
        """The best trial that keeps all limits; where none does, the one that misses least."""
        sign = 1 if self.task.score.higher_is_better else -1
        good = [one for one in self.trials if one.keeps_all]
        if good and self.minimise == "size" and self.limit("score"):
            return min(good, key=lambda one: (one.size_bytes, -sign * one.score))
        if good:
            return max(good, key=lambda one: sign * one.score)
        size = self.limit("size")
        over = {id(one): max(1.0, one.size_bytes / size.value) if size else 1.0 for one in self.trials}
        return min(self.trials, key=lambda one: (over[id(one)], -sign * one.score))

    def advice(self, best: Trial) -> str:
        """Which limit binds, and what relaxing it would buy, read off the trials."""
        missed = [text for text, met in best.met.items() if not met] or ["a limit on the verdict data"]
        sign, size = (1 if self.task.score.higher_is_better else -1), self.limit("size")
        said = f"Missed: {' and '.join(missed)}."
        better = [one for one in self.trials if sign * one.score > sign * best.score]
        if better and size is not None:
            next_up = min(better, key=lambda one: one.size_bytes)
            more = units.size_text(next_up.size_bytes)
            gain = abs(next_up.score - best.score)
            said += f" With {more} instead of {units.size_text(best.size_bytes)} the score would be {gain:.2f} better."
        smaller = [one for one in self.trials if one.size_bytes < best.size_bytes]
        if smaller and size is not None:
            least = min(smaller, key=lambda one: one.size_bytes)
            loss = abs(best.score - least.score)
            said += f" {loss:.2f} {self.task.score.unit} less would allow {units.size_text(least.size_bytes)}."
        return said

    def seconds_of_epoch(self) -> float:
        """About how long one pass over the training data takes: three times its forward pass and the teacher's."""
        count = min(64, len(self.task.train))
        inputs, _ = next(self.task.train.batches(count))
        with evaluating(self.network):
            outputs_of(self.network, inputs)
            start = time.perf_counter()
            outputs_of(self.network, inputs)
        return 4 * (time.perf_counter() - start) * len(self.task.train) / count


def epochs_for(seconds: float, epoch: float) -> float:
    """Epochs that fit, at most MOST_EPOCHS, in quarters; 0 where not a quarter does."""
    return min(MOST_EPOCHS, int(4 * seconds / max(epoch, 1e-9)) / 4)
