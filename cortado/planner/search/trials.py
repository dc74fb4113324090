"""Trials: what was tried for a goal, kept in a file; the best of it, and what binds where a limit was missed."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cortado import quantities as units
from cortado.errors import BadFile
from cortado.file.whole import make_folder, write_whole
from cortado.report.report import Z_95, Compared
from cortado.task.limits import Limit

MINIMISE = ("size", "latency", "loss")
"""What a goal may make small; loss is of the score."""
TRIALS = "trials.json"
ALIKE = 1.05


@dataclass(frozen=True)
class Trial:
    """A recipe that was tried: bytes of its file, score on validation data, milliseconds of one sample where time counts, and
    whether each limit was kept there, that of the score surely.  `shape` is what was cut, in words; `failed` why it came to
    nothing; `timed` where the time was taken: runtime and threads.  `narrowly`: the score was kept, by less than `error`, its
    standard error."""

    recipe: dict[str, Any]
    shape: str = ""
    size_bytes: int = 0
    score: float = 0.0
    latency_ms: float | None = None
    met: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0
    failed: str = ""
    timed: str = ""
    error: float = 0.0
    narrowly: bool = False

    @property
    def done(self) -> bool:
        return self.size_bytes > 0

    @property
    def keeps_all(self) -> bool:
        return self.done and all(self.met.values())

    @property
    def keeps_narrowly(self) -> bool:
        """Whether it keeps all limits, but that of the score by less than its standard error."""
        return self.done and self.narrowly and sum(not met for met in self.met.values()) == 1

    @property
    def epochs(self) -> float:
        """Passes over the training data that it recovered with."""
        return epochs_of(self.recipe["stages"])

    @property
    def trained(self) -> bool:
        return self.epochs > 0

    def text(self) -> str:
        """What it is, in a few words."""
        recovered = f"{self.epochs:g} epochs" if self.epochs else "nothing trained"
        return f"{self.shape or 'no cut'}, {recovered}"


@dataclass(frozen=True)
class Wanted:
    """A goal: limits, what is made small ("size", "latency" or "loss"), and 1 where a higher score is better, else -1."""

    limits: tuple[Limit, ...]
    minimise: str
    sign: int
    metric_unit: str = ""

    def limit(self, what: str) -> Limit | None:
        return next((limit for limit in self.limits if limit.what == what), None)

    @property
    def time_counts(self) -> bool:
        return self.minimise == "latency" or self.limit("latency") is not None

    @property
    def bytes_count(self) -> bool:
        return self.minimise == "size" or self.limit("size") is not None

    def best(self, trials: Sequence[Trial]) -> Trial:
        """The best trial that keeps all limits, or else keeps them narrowly; where none does, the one that misses least."""
        done = [one for one in trials if one.done]
        good = [one for one in done if one.keeps_all] or [one for one in done if one.keeps_narrowly]
        if good and self.minimise == "size":
            return min(good, key=lambda one: (one.size_bytes, -self.sign * one.score))
        if good and self.minimise == "latency":
            return min(good, key=lambda one: (time_of(one), -self.sign * one.score))
        if good:
            return max(good, key=lambda one: self.sign * one.score)
        least = min(map(self.over, done))
        # Times that differ by less are not told apart.
        return max((one for one in done if self.over(one) <= ALIKE * least), key=lambda one: self.sign * one.score)

    def over(self, trial: Trial) -> float:
        """How many times over its limits of bytes and time a trial is; 1 where it keeps them."""
        size, latency = self.limit("size"), self.limit("latency")
        factor = max(1.0, trial.size_bytes / size.value) if size else 1.0
        return factor * (max(1.0, time_of(trial) / latency.value) if latency else 1.0)

    def keeps_score(self, trial: Trial) -> bool:
        """Whether a trial kept the limit of the score, whatever became of the others."""
        score = self.limit("score")
        return trial.done and (score is None or trial.met.get(score.text, True))

    def keeps_size(self, trial: Trial) -> bool:
        """Whether a trial kept the limit of bytes."""
        size = self.limit("size")
        return trial.done and (size is None or trial.size_bytes <= size.value)

    def advice(self, best: Trial, trials: Sequence[Trial]) -> str:
        """Which limit binds, and what relaxing it would buy, read off the trials."""
        missed = [text for text, met in best.met.items() if not met] or ["a limit on the test data"]
        said = [f"Missed: {' and '.join(missed)}."]
        done = [one for one in trials if one.done]
        narrow = [one.error for one in done if one.narrowly]
        if narrow:
            said.append(
                f"{len(narrow)} trials kept the score by less than its standard error ({max(narrow):.2f} {self.metric_unit}): "
                "that may be luck. More validation data would tell."
            )
        better = [one for one in done if self.sign * one.score > self.sign * best.score]
        for what, cost in (("size", size_of), ("latency", time_of)):
            if self.limit(what) is None and self.minimise != what:
                continue
            larger = [one for one in better if cost(one) > cost(best)]
            if larger:
                near = min(larger, key=cost)
                gain = abs(near.score - best.score)
                said.append(
                    f"With {shown(what, near)} instead of {shown(what, best)} the score would be {gain:.2f} better."
                )
            smaller = [one for one in done if cost(one) < cost(best)]
            if smaller:
                least = min(smaller, key=cost)
                loss = abs(best.score - least.score)
                said.append(f"{loss:.2f} {self.metric_unit} less would allow {shown(what, least)}.".replace("  ", " "))
        return " ".join(said)


def surely(limit: Limit, found: Compared, sign: int) -> tuple[bool, float]:
    """Whether a limit of the score is kept by one standard error of the paired difference, and that error; 0 where unknown.

    The smallest of many trials that keep a limit is the luckiest of them too; so that luck does not decide, it has to be
    better by what it may be wrong by (the one-standard-error rule of Breiman et al., 1984).  That is what the data say of the
    difference between both networks, also for a limit that is no difference: what the original network scores on other data is
    not the planner's to make better.  With fewer than 30 samples the error is unknown, and the score counts as it stands.
    `sign` is -1 where less is better.
    """
    error = 0.0 if found.low is None or found.high is None else (found.high - found.low) / (2 * Z_95)
    wanted = sign * found.original + limit.value if limit.relative else sign * limit.value
    return sign * found.compressed - error >= wanted, error


def epochs_of(stages: Any) -> float:
    """Passes over the training data in stages as data, the rounds of a repeat among them."""
    if isinstance(stages, dict):
        knobs = sum(float(stages.get(name) or 0.0) for name in ("epochs", "finish"))
        return knobs + sum(epochs_of(one) for one in stages.values() if isinstance(one, (dict, list)))
    return sum(epochs_of(one) for one in stages) if isinstance(stages, list) else 0.0


def size_of(trial: Trial) -> float:
    return trial.size_bytes


def time_of(trial: Trial) -> float:
    """Its time; without end where none was taken."""
    return math.inf if trial.latency_ms is None else trial.latency_ms


def shown(what: str, trial: Trial) -> str:
    """Its bytes or its milliseconds."""
    return units.size_text(trial.size_bytes) if what == "size" else units.time_text(time_of(trial))


def note(folder: Path, trials: Sequence[Trial]) -> None:
    """Write down what was tried, and what is about to be."""
    make_folder(folder)
    write_whole(folder / TRIALS, json.dumps([asdict(one) for one in trials], indent=1).encode())


def noted(folder: Path) -> list[Trial]:
    """The trials of an interrupted run, in order; the last one may have been begun only.  Raises BadFile."""
    path = folder / TRIALS
    if not path.exists():
        return []
    try:
        return [Trial(**one) for one in json.loads(path.read_text(encoding="utf8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"goal: {path} is damaged ({error}). Delete the folder and start again.") from error
