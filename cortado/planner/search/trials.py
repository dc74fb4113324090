"""Trials: a recipe that a search tried, what was asked for, which trial is best, and the note in each trial's folder."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cortado import quantities as units
from cortado.errors import BadFile
from cortado.file.whole import make_folder, write_whole
from cortado.report.candidate import pareto_front
from cortado.report.report import Z_95, Compared
from cortado.task.limits import Limit

MINIMISE = ("size", "latency", "loss")
"""What a search may make small; loss is of the score."""
NOTE = "trial.json"
ALIKE = 1.05
"""Times that differ by less are not told apart."""


@dataclass(frozen=True)
class Trial:
    """A recipe that was tried: bytes of its file, score on validation data, milliseconds of one sample where time counts.

    `over` says by what share each limit was exceeded, 0 or less where it was kept, that of the score surely. `shape` is
    what was cut, in words, `point` the knobs that were drawn; `failed` why it came to nothing; `timed` where the time was
    taken: runtime and threads. `narrowly`: the score was kept, by less than `error`, its standard error.
    """

    recipe: dict[str, Any]
    shape: str = ""
    size_bytes: int = 0
    score: float = math.nan
    latency_ms: float | None = None
    over: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    failed: str = ""
    timed: str = ""
    error: float = 0.0
    narrowly: bool = False
    number: int = 0
    point: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.size_bytes > 0

    @property
    def missed(self) -> list[str]:
        """The limits that it does not keep."""
        return [text for text, amount in self.over.items() if amount > 0]

    @property
    def keeps_all(self) -> bool:
        return self.done and not self.missed

    @property
    def keeps_narrowly(self) -> bool:
        """Whether it keeps all limits, but that of the score by less than its standard error."""
        return self.done and self.narrowly and len(self.missed) == 1

    @property
    def epochs(self) -> float:
        """Passes over the training data that it was trained with."""
        return epochs_of(self.recipe.get("stages"))

    @property
    def trained(self) -> bool:
        return self.epochs > 0

    def cost(self, by: str) -> float:
        """Return its bytes, or its milliseconds by "latency"; without end where none were taken."""
        if by != "latency":
            return self.size_bytes
        return math.inf if self.latency_ms is None else self.latency_ms

    def text(self) -> str:
        """Return in a few words what it is."""
        if self.point:
            return ", ".join(
                f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in self.point.items()
            )
        return f"{self.shape or 'no cut'}, {f'{self.epochs:g} epochs' if self.trained else 'nothing trained'}"

    def kept_text(self) -> str:
        """Return whether it keeps all limits, in words."""
        if self.keeps_narrowly:
            return "kept by luck, perhaps"
        return "kept" if self.keeps_all else "missed"


@dataclass(frozen=True)
class SearchGoal:
    """A goal: limits, what is made small ("size", "latency" or "loss"), and 1 where a higher score is better, else -1."""

    limits: tuple[Limit, ...]
    minimise: str
    sign: int
    metric_unit: str = ""

    def limit(self, what: str) -> Limit | None:
        return next((limit for limit in self.limits if limit.what == what), None)

    @property
    def cheap(self) -> str:
        """What makes a trial cheap: its bytes, or its time."""
        return "size" if self.minimise == "loss" else self.minimise

    @property
    def best_score(self) -> bool:
        """Whether the best score is wanted, and not the cheapest network that keeps one."""
        return self.minimise == "loss" or self.limit("score") is None

    @property
    def time_counts(self) -> bool:
        return self.minimise == "latency" or self.limit("latency") is not None

    @property
    def bytes_count(self) -> bool:
        return self.minimise == "size" or self.limit("size") is not None

    def harm(self, trial: Trial) -> float:
        """Return the score, turned so that less is better."""
        return -self.sign * trial.score

    def best(self, trials: Sequence[Trial]) -> Trial:
        """Return the best trial that keeps all limits, or keeps them narrowly; where none does, the one that misses least."""
        done = [one for one in trials if one.done]
        good = [one for one in done if one.keeps_all] or [one for one in done if one.keeps_narrowly]
        if good and self.best_score:
            return min(good, key=lambda one: (self.harm(one), one.cost(self.cheap), one.number))
        if good:
            return min(good, key=lambda one: (one.cost(self.cheap), self.harm(one), one.number))
        alike = ALIKE if self.limit("latency") else 1.0
        least = alike * min(map(self.times_over, done))
        return min((one for one in done if self.times_over(one) <= least), key=lambda one: (self.harm(one), one.number))

    def front(self, trials: Sequence[Trial]) -> tuple[Trial, ...]:
        """Return those that keep all limits (all, where none does) than which none is both cheaper and better, cheapest first."""
        done = [one for one in trials if one.done]
        kept = [one for one in done if one.keeps_all] or done
        return tuple(pareto_front(kept, lambda one: one.cost(self.cheap), self.harm))

    def times_over(self, trial: Trial) -> float:
        """Return how many times over its limits of bytes and time a trial is; 1 where it keeps them."""
        limits = [limit for limit in self.limits if limit.what != "score"]
        return math.prod(max(1.0, trial.cost(limit.what) / limit.value) for limit in limits)

    def keeps(self, what: str, trial: Trial) -> bool:
        """Return whether a trial kept the limit of the score, or that of bytes, whatever became of the others."""
        limit = self.limit(what)
        return trial.done and (limit is None or trial.over.get(limit.text, 0.0) <= 0)

    def excess(self, limit: Limit, trial: Trial, compared: Compared) -> tuple[float, float]:
        """Return by what share a trial exceeds a limit, 0 or less where it keeps it, and the standard error of a score."""
        if limit.what != "score":
            return trial.cost(limit.what) / limit.value - 1, 0.0
        short, error = shortfall(limit, compared, self.sign)
        return short / max(abs(compared.original), 1e-9), error

    def advice(self, best: Trial, trials: Sequence[Trial]) -> str:
        """Return which limit binds, and what relaxing it would buy, read off the trials."""
        said = [f"Missed: {' and '.join(best.missed or ['a limit on the test data'])}."]
        done = [one for one in trials if one.done]
        narrow = [one.error for one in done if one.narrowly]
        if narrow:
            said.append(
                f"{len(narrow)} trials kept the score by less than its standard error ({max(narrow):.2f} {self.metric_unit}): "
                "that may be luck. More validation data would tell."
            )
        for what, text in (("size", units.size_text), ("latency", units.time_text)):
            if self.limit(what) is None and self.minimise != what:
                continue
            here = best.cost(what)
            larger = [one for one in done if self.harm(one) < self.harm(best) and one.cost(what) > here]
            if larger:
                near = min(larger, key=lambda one: one.cost(what))
                gain = f"the score would be {abs(near.score - best.score):.2f} better."
                said.append(f"With {text(near.cost(what))} instead of {text(here)} {gain}")
            least = min(done, key=lambda one: one.cost(what))
            if least.cost(what) < here:
                lost = f"{abs(best.score - least.score):.2f} {self.metric_unit}".rstrip()
                said.append(f"{lost} less would allow {text(least.cost(what))}.")
        return " ".join(said)


def shortfall(limit: Limit, found: Compared, sign: int) -> tuple[float, float]:
    """Return what a score lacks of its limit by one standard error, 0 or less where it is kept, and that error, 0 where unknown.

    The smallest of many trials that keep a limit is the luckiest of them too; so that luck does not decide, it has to be
    better by what it may be wrong by (the one-standard-error rule of Breiman et al., 1984).  That is what the data say of the
    difference between both networks, also for a limit that is no difference: what the original scores on other data is
    not the planner's to make better.  With fewer than 30 samples the error is unknown, and the score counts as it stands.
    `sign` is -1 where less is better.
    """
    error = 0.0 if found.low is None or found.high is None else (found.high - found.low) / (2 * Z_95)
    wanted = sign * found.original + limit.value if limit.relative else sign * limit.value
    return wanted - (sign * found.compressed - error), error


def epochs_of(stages: Any) -> float:
    """Return the passes over the training data in stages as data, the rounds of a repeat among them."""
    if isinstance(stages, dict):
        knobs = sum(float(stages.get(name) or 0.0) for name in ("epochs", "finish"))
        return knobs + sum(epochs_of(one) for one in stages.values() if isinstance(one, (dict, list)))
    return sum(epochs_of(one) for one in stages) if isinstance(stages, list) else 0.0


def note(folder: Path, trial: Trial) -> None:
    """Write down what is about to be tried in a folder, or what came out."""
    make_folder(folder)
    write_whole(folder / NOTE, json.dumps(asdict(trial), indent=1).encode())


def noted(folder: Path) -> Trial | None:
    """Return the trial of an earlier run in this folder, which may have been begun only.  Raises BadFile."""
    path = folder / NOTE
    if not path.exists():
        return None
    try:
        return Trial(**json.loads(path.read_text(encoding="utf8")))
    except (ValueError, TypeError) as error:
        raise BadFile(f"search: {path} is damaged ({error}). Delete its folder and start again.") from error
