"""Trials: a trial of a search, the search's goal, the choice of the best trial, and the note in each trial's folder."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cortado import quantities as units
from cortado.errors import BadFile
from cortado.file.whole import make_folder, write_whole
from cortado.report.candidate import pareto_front
from cortado.report.report import Z_95, Compared
from cortado.task.limits import MULTIPLY_ADDS, Limit, limit_of_kind

MINIMISE = ("size", "latency", "loss")
"""Quantities that a search can minimise; "loss" is the loss of score."""
NOTE = "trial.json"
ALIKE = 1.05
"""Times within this factor count as equal."""

COST_TEXTS: dict[str, Callable[[float], str]] = {
    "size": units.size_text, "file": units.size_text, "latency": units.time_text, MULTIPLY_ADDS: units.count_text,
}  # fmt: skip
"""How the costs of trials are written."""
REFUSED = -1.0
"""The reward of a trial that was refused or misses a limit."""


@dataclass(frozen=True)
class Trial:
    """A trial: its recipe, bytes of its file, score on validation data, milliseconds of one sample if latency counts.

    `over`: share by which each limit is exceeded, at most 0 if met (the score by one standard error). `shape`: the cut as
    text; `point`: the drawn knobs; `failed`: the error, if any; `timed`: runtime and threads of the latency. `narrowly`:
    some score limit is met by less than its standard error, and no limit is missed by more; `error` is the largest of these
    errors. `reward`: see reward_of.
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
    file_bytes: int | None = None
    multiply_adds: float | None = None
    reward: float = REFUSED

    @property
    def done(self) -> bool:
        return self.size_bytes > 0

    @property
    def missed(self) -> list[str]:
        """Return the limits that it misses."""
        return [text for text, amount in self.over.items() if amount > 0]

    @property
    def keeps_all(self) -> bool:
        return self.done and not self.missed

    @property
    def keeps_narrowly(self) -> bool:
        """Return whether it meets all limits, those of scores by less than their standard errors."""
        return self.done and self.narrowly

    @property
    def epochs(self) -> float:
        """Return its epochs of training."""
        return epochs_of(self.recipe.get("stages"))

    @property
    def trained(self) -> bool:
        return self.epochs > 0

    def cost(self, by: str) -> float:
        """Return its bytes, or what else is limited: "file", "latency", "multiply_adds"; infinite if unknown."""
        if by not in ("file", "latency", MULTIPLY_ADDS):
            return self.size_bytes
        known = {"file": self.file_bytes, "latency": self.latency_ms}.get(by, self.multiply_adds)
        return math.inf if known is None else known

    def text(self) -> str:
        """Return a short label."""
        if self.point:
            return ", ".join(
                f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in self.point.items()
            )
        return f"{self.shape or 'no cut'}, {f'{self.epochs:g} epochs' if self.trained else 'untrained'}"

    def outcome_text(self, unit: str) -> str:
        """Return what came of it, for the log: "12.3 KB, 91.20 %, limits met"."""
        if not self.done:
            return f"refused: {self.failed}"
        taken = "" if self.latency_ms is None else f", {units.time_text(self.latency_ms)}"
        score = f"{self.score:.2f} {unit}".rstrip()
        return f"{units.size_text(self.size_bytes)}{taken}, {score} on validation data, limits {self.kept_text()}"

    def kept_text(self) -> str:
        """Return "met", "missed", or that the score is within its standard error."""
        if self.keeps_narrowly:
            return "met, within one standard error"
        return "met" if self.keeps_all else "missed"


@dataclass(frozen=True)
class SearchGoal:
    """Limits, the quantity to minimise ("size", "latency" or "loss"), and a sign: 1 if a higher score is better, else -1."""

    limits: tuple[Limit, ...]
    minimise: str
    sign: int
    metric_unit: str = ""

    def limit(self, what: str) -> Limit | None:
        """Return the limit of a kind, or None."""
        return limit_of_kind(self.limits, what)

    @property
    def cheap(self) -> str:
        """Return the cost of a trial: "size" or "latency"."""
        return "size" if self.minimise == "loss" else self.minimise

    @property
    def best_score(self) -> bool:
        """Return whether the goal is the best score rather than the cheapest network."""
        return self.minimise == "loss" or self.limit("score") is None

    @property
    def time_counts(self) -> bool:
        return self.minimise == "latency" or self.limit("latency") is not None

    @property
    def bytes_count(self) -> bool:
        return self.minimise == "size" or self.limit("size") is not None

    def harm(self, trial: Trial) -> float:
        """Return the score with its sign set so that less is better."""
        return -self.sign * trial.score

    def best(self, trials: Sequence[Trial]) -> Trial:
        """Return the best trial that meets all limits, else one that meets them narrowly, else the one that misses least."""
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
        """Return the Pareto front of the trials that meet all limits (of all trials if none does), cheapest first."""
        done = [one for one in trials if one.done]
        kept = [one for one in done if one.keeps_all] or done
        return tuple(pareto_front(kept, lambda one: one.cost(self.cheap), self.harm))

    def times_over(self, trial: Trial) -> float:
        """Return the factor by which a trial exceeds its size and latency limits; 1 if it meets them."""
        limits = [limit for limit in self.limits if limit.what != "score"]
        return math.prod(max(1.0, trial.cost(limit.what) / limit.value) for limit in limits)

    def keeps(self, what: str, trial: Trial) -> bool:
        """Return whether a trial meets all limits of a kind."""
        own = [limit for limit in self.limits if limit.what == what]
        return trial.done and all(trial.over.get(limit.text, 0.0) <= 0 for limit in own)

    def excess(self, limit: Limit, trial: Trial, compared: Compared) -> tuple[float, float]:
        """Return the share by which a trial exceeds a limit (at most 0 if met), and the standard error of a score."""
        if limit.what != "score":
            return trial.cost(limit.what) / limit.value - 1, 0.0
        short, error = shortfall(limit, compared, self.sign)
        return short / max(abs(compared.original), 1e-9), error

    def advice(self, best: Trial, trials: Sequence[Trial]) -> str:
        """Return which limits were missed, and what relaxing others would gain, from the trials."""
        sentences = [f"Missed: {' and '.join(best.missed or ['a limit on the test data'])}."]
        done = [one for one in trials if one.done]
        narrow = [one.error for one in done if one.narrowly]
        if narrow:
            sentences.append(
                f"{len(narrow)} trials met the score limit by less than its standard error "
                f"({max(narrow):.2f} {self.metric_unit}): "
                "more validation data would tell whether they do."
            )
        for what, text in (
            ("size", units.size_text),
            ("file", units.size_text),
            ("latency", units.time_text),
            (MULTIPLY_ADDS, units.count_text),
        ):
            if self.limit(what) is None and self.minimise != what:
                continue
            here = best.cost(what)
            larger = [one for one in done if self.harm(one) < self.harm(best) and one.cost(what) > here]
            if larger:
                near = min(larger, key=lambda one: one.cost(what))
                gain = f"the score would be {abs(near.score - best.score):.2f} better."
                sentences.append(f"With {text(near.cost(what))} instead of {text(here)} {gain}")
            least = min(done, key=lambda one: one.cost(what))
            if least.cost(what) < here:
                lost = f"{abs(best.score - least.score):.2f} {self.metric_unit}".rstrip()
                sentences.append(f"{lost} less would allow {text(least.cost(what))}.")
        return " ".join(sentences)


def reward_of(trial: Trial, share: float, original: float, sign: int) -> float:
    """Return C (2 - C) A / A0 for a trial that meets its limits, else -1.  Ashok et al., 2018.

    `share` is its cost over the original's, so that C = 1 - share is the compression; A / A0 is the ratio of the scores,
    turned over where less is better.
    """
    if not trial.done or trial.missed:
        return REFUSED
    compression = 1 - min(share, 1.0)
    better, worse = (trial.score, original) if sign > 0 else (original, trial.score)
    return compression * (2 - compression) * better / worse if worse else REFUSED


def shortfall(limit: Limit, found: Compared, sign: int) -> tuple[float, float]:
    """Return how far a score minus one standard error falls short of its limit (at most 0 if met), and that error.

    The smallest of many trials within a limit is also the luckiest, so it must meet the limit by one standard error (the
    one-standard-error rule of Breiman et al., 1984), that of the paired difference between both networks. With fewer than
    30 samples the error is unknown, and 0 is used. `sign` is -1 if less is better.
    """
    error = 0.0 if found.low is None or found.high is None else (found.high - found.low) / (2 * Z_95)
    wanted = sign * found.original + limit.change(found.original) if limit.relative else sign * limit.value
    return wanted - (sign * found.compressed - error), error


def epochs_of(stages: Any) -> float:
    """Return the epochs of training in stages as data, rounds of a repeat included."""
    if isinstance(stages, dict):
        knobs = sum(float(stages.get(name) or 0.0) for name in ("epochs", "finish"))
        return knobs + sum(epochs_of(one) for one in stages.values() if isinstance(one, (dict, list)))
    return sum(epochs_of(one) for one in stages) if isinstance(stages, list) else 0.0


def note(folder: Path, trial: Trial) -> None:
    """Write a trial, started or finished, into its folder."""
    make_folder(folder)
    write_whole(folder / NOTE, json.dumps(asdict(trial), indent=1).encode())


def noted(folder: Path) -> Trial | None:
    """Return the trial in this folder, finished or not; None if there is none.  Raises BadFile."""
    path = folder / NOTE
    if not path.exists():
        return None
    try:
        return Trial(**json.loads(path.read_text(encoding="utf8")))
    except (ValueError, TypeError) as error:
        raise BadFile(f"search: {path} is damaged ({error}). Delete its folder and start again.") from error
