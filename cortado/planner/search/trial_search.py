"""Trial search: search the knobs of a recipe by trials, for what no sensitivity predicts: lr, epochs, widths, structure.

Uses Optuna's tree-structured Parzen estimator (Bergstra, Bardenet, Bengio and Kegl, 2011) with several objectives and
constraints.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from cortado.engine.fingerprints import json_data, sum_of_data, sum_of_values
from cortado.engine.options import RunOptions
from cortado.errors import REFUSALS, BadFile, BadValue, MissingPackage
from cortado.planner.search.engine import Engine
from cortado.planner.search.ranges import Ranged, read_ranged
from cortado.planner.search.result import SearchResult
from cortado.planner.search.trials import NOTE, Trial, note
from cortado.planner.sensitivity.deadline import Deadline, seconds_of
from cortado.progress import Progress
from cortado.running.brought import accept
from cortado.task.task import Task

if TYPE_CHECKING:
    from cortado.planner.search.study import Direction, Study

TRIALS = 30
"""Trials to run if neither a number nor a time limit is given."""
SAMPLERS = ("tpe", "random", "n2n")
"""Who draws the trials."""
PAUSE = 0.2
"""Seconds between two checks for trials of other processes."""


def search(
    network: nn.Module,
    task: Task,
    recipe: Any,
    limits: Sequence[str] = (),
    *,
    trials: int | None = None,
    time_limit: str | float | None = None,
    minimise: str = "size",
    folder: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
    runtimes: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    threads: int = 1,
    sampler: str = "tpe",
) -> SearchResult:
    """Return the best of many trials of `recipe`, some knobs of which are ranges (see cortado.planner.search.ranges).

    >>> found = cortado.search(net, task, "quantize/weights bits=2..8", ["score >= -1 %"], trials=8, folder="runs/search")

    Without limits, size (or latency, by `minimise`) and score are both objectives, and the result has the best score, the
    smallest file among equals. With only a size or latency limit: the best score within it. With a score limit: the least
    size (or latency) that meets it. `minimise` "loss": always the best score. `trials` counts all processes and runs; no
    trial starts after the `time_limit` ("30 min"). Trials are stored in `folder`; `resume` continues the study there, in
    several processes at once if you like, and a trial whose process died is repeated. A single process draws the same
    trials from the same task.seed, interrupted or not. Latency is measured in the runtime of its limit, else in the first
    of `runtimes`: run one process at a time then. `sampler`: "tpe", "random", or "n2n", a policy that first removes blocks and
    then shrinks layers (see cortado.planner.search.n2n). Trials are scored on validation data, the best one on the test data.
    Raises BadRecipe, BadValue, MissingPackage without Optuna, and what compress raises.
    """
    options = RunOptions.read(
        limits, folder=folder, resume=resume, progress=progress, runtimes=runtimes, batches=batches, threads=threads,
        command="search",
    )  # fmt: skip
    options = options.for_network(network, task)
    return search_within(network, task, recipe, options, trials, time_limit, minimise, sampler)


def search_within(
    network: nn.Module, task: Task, recipe: Any, options: RunOptions, trials: int | None, time_limit: str | float | None,
    minimise: str, sampler: str = "tpe",
) -> SearchResult:  # fmt: skip
    """Do what `search` does, with options that were read before."""
    accept(network, "search")
    seconds, ranged = seconds_of(time_limit, "search"), read_ranged(recipe)
    if trials is not None and trials < 1:
        raise BadValue(f"search: trials must be 1 or more, got {trials}.")
    if sampler not in SAMPLERS:
        raise BadValue(f"search: sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}.")
    made = KnobSearch(Engine.of(network, task, minimise, options), ranged, sampler)
    made.run(TRIALS if trials is None and time_limit is None else trials, seconds, options.resume)
    return made.engine.result(made.trials())


@dataclass
class KnobSearch:
    """One process of a search."""

    engine: Engine
    ranged: Ranged
    sampler: str = "tpe"

    @property
    def objectives(self) -> tuple[str, ...]:
        """Return what is optimised: size or latency, the score, or both."""
        wanted = self.engine.wanted
        if wanted.minimise == "loss" or (wanted.limits and wanted.best_score):
            return ("score",)
        return (wanted.cheap,) if wanted.limits else (wanted.cheap, "score")

    def question(self) -> dict[str, Any]:
        """Return hashes and texts that identify the search: recipe, goal, network, task."""
        task, wanted = self.engine.task, self.engine.wanted
        data = b"".join(sum_of_data(part) for part in task.known_data)
        return {
            "recipe": json.dumps([json_data(self.ranged.as_data()), self.ranged.head.get("match_moments", True)]),
            "goal": json.dumps(
                [sorted(limit.text for limit in wanted.limits), wanted.minimise, self.engine.timed, *self.drawn_by]
            ),
            "network": sum_of_values(self.engine.network).hex(),
            "task": f"{task.name} {task.seed} {task.batch} {data.hex()}",
        }

    @property
    def drawn_by(self) -> tuple[str, ...]:
        """Return the sampler, if it is not the default."""
        return () if self.sampler == "tpe" else (self.sampler,)

    def begin(self, resume: bool, most: int | None) -> "Study":
        """Start or join the study in the engine's folder.  Raises BadValue, MissingPackage."""
        require_optuna()
        from cortado.planner.search.study import DATABASE, Study

        folder, wanted = self.engine.folder, self.engine.wanted
        if not resume and (folder / DATABASE).exists():
            raise BadValue(
                f"search: {folder} already holds trials. Continue them with --resume, or choose another folder."
            )
        best: Direction = "maximize" if wanted.sign > 0 else "minimize"
        directions: list[Direction] = [best if one == "score" else "minimize" for one in self.objectives]
        return Study(folder, self.ranged.ranges, directions, self.question(), self.engine.task.seed, self.sampler, most)

    def run(self, most: int | None, seconds: float, resume: bool) -> None:
        """Run trials until there are enough or time is up; then wait for trials of other processes."""
        self.study, deadline = self.begin(resume, most), Deadline(seconds)
        with self.engine.progress.bar("trials", most or 0) as bar:
            bar.advance(len(self.study.ended()))
            while True:
                late = deadline.over() and bool(self.study.ended())
                if not late and self.study.open(most):
                    self.study.carry_out(most, self.carry_out)
                    bar.advance()
                elif late or not self.study.under_way():
                    return
                else:
                    time.sleep(PAUSE)

    def carry_out(self, turn: int, drawn: dict[str, Any]) -> tuple[list[float] | None, dict[str, float], float]:
        """Run the recipe with the drawn values; return the objectives (None if refused), the excess over limits, the reward."""
        engine = self.engine
        point = {one.name: one.value(drawn[one.name]) for one in self.ranged.ranges}
        trial = Trial({}, number=turn, point=point)
        try:
            trial = replace(trial, recipe=json_data(self.ranged.at(drawn).as_data()))
        except REFUSALS as error:
            trial = replace(trial, failed=str(error))
            note(engine.folder_of(turn), trial)
        else:
            trial, _ = engine.run(trial)
        values = [trial.score if one == "score" else trial.cost(engine.wanted.cheap) for one in self.objectives]
        known = trial.done and all(map(math.isfinite, values))
        return (values if known else None), trial.over, trial.reward

    def trials(self) -> list[Trial]:
        """Return all finished trials, in order.  Raises BadFile for a missing or damaged note."""
        found = {one.number: one for one in self.engine.noted()}
        ended = self.study.ended()
        gone = [turn for turn in ended if turn not in found]
        if gone:
            path = self.engine.folder_of(gone[0]) / NOTE
            raise BadFile(f"search: {path} is missing. Delete the folder and start again.")
        return [found[turn] for turn in ended]


def require_optuna() -> None:
    """Raise MissingPackage where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingPackage(
            "search: optuna is not installed. Run pip install -e '.[search]' in Cortado's folder, or use "
            "compress --limit without a recipe, which does not need it."
        ) from error
