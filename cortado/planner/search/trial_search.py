"""Trial search: knobs of a recipe are searched by trials, for what no sensitivity can tell: rates, epochs, widths, structure.

The tree-structured Parzen estimator (Bergstra, Bardenet, Bengio and Kegl, 2011), with several objectives and under limits as
Optuna has it.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from cortado.brought import accept
from cortado.engine.fingerprints import json_data, sum_of_data, sum_of_values
from cortado.engine.options import RunOptions
from cortado.errors import REFUSALS, BadFile, BadValue, MissingPackage
from cortado.planner.search.deadline import Deadline, seconds_of
from cortado.planner.search.engine import Engine
from cortado.planner.search.ranges import Ranged, read_ranged
from cortado.planner.search.result import SearchResult
from cortado.planner.search.trials import NOTE, Trial, note
from cortado.progress import Progress
from cortado.task.task import Task

if TYPE_CHECKING:
    from cortado.planner.search.study import Direction, Study

TRIALS = 30
"""When neither a number nor a time is given."""
PAUSE = 0.2
"""Seconds between two looks at trials of other processes."""


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
) -> SearchResult:
    """Return the best of many trials of `recipe`, in which some knobs lie in ranges (see cortado.planner.search.ranges).

    Without limits, size (or latency, as `minimise` says) and score are searched at once, and the best score is taken, the
    smallest file among equals. A limit of size or latency alone: the best score within it. A limit of the score: the least size
    (or latency) that keeps it. `minimise` "loss": the best score in any case. `trials` in all, over every process and
    run; none begins after the `time_limit` ("30 min"). Each trial is kept in `folder`; with `resume` the study that is
    there continues, and several processes may do so at once; a trial whose process died is taken up by another, some time
    after its last heartbeat. One process alone gives the same trials from the same task.seed, interrupted or not. Latency
    is taken in the first of `runtimes`, or where its limit says: let one process at a time do that. All is judged on
    validation data; the test data are used for the best one.
    Raises BadRecipe, BadValue, MissingPackage where Optuna is missing, and what compress raises.
    """
    accept(network, "search")
    seconds, ranged = seconds_of(time_limit, "search"), read_ranged(recipe)
    if trials is not None and trials < 1:
        raise BadValue(f"search: trials must be 1 or more, got {trials}.")
    options = RunOptions.read(
        limits, folder=folder, resume=resume, progress=progress, runtimes=runtimes, batches=batches, threads=threads,
        command="search",
    )  # fmt: skip
    engine = Engine.of(network, task, minimise, options)
    made = KnobSearch(engine, ranged)
    made.run(TRIALS if trials is None and time_limit is None else trials, seconds, resume)
    return engine.result(made.trials())


@dataclass
class KnobSearch:
    """One process at a search of knobs."""

    engine: Engine
    ranged: Ranged

    @property
    def objectives(self) -> tuple[str, ...]:
        """What is made small or large: bytes or time, the score, or both at once."""
        wanted = self.engine.wanted
        if wanted.minimise == "loss" or (wanted.limits and wanted.best_score):
            return ("score",)
        return (wanted.cheap,) if wanted.limits else (wanted.cheap, "score")

    def question(self) -> dict[str, Any]:
        """Return what is searched for, by parts."""
        task, wanted = self.engine.task, self.engine.wanted
        data = b"".join(sum_of_data(part) for part in (task.train, task.validation, task.calibration))
        return {
            "recipe": json.dumps([json_data(self.ranged.as_data()), self.ranged.head.get("match_moments", True)]),
            "goal": json.dumps([sorted(limit.text for limit in wanted.limits), wanted.minimise, self.engine.timed]),
            "network": sum_of_values(self.engine.network).hex(),
            "task": f"{task.name} {task.seed} {task.batch} {data.hex()}",
        }

    def begin(self, resume: bool) -> "Study":
        """Begin the study of the engine's folder, or join it.  Raises BadValue, and MissingPackage."""
        require_optuna()
        from cortado.planner.search.study import DATABASE, Study

        folder, wanted = self.engine.folder, self.engine.wanted
        if not resume and (folder / DATABASE).exists():
            raise BadValue(
                f"search: {folder} holds trials already. Go on with them, or join others there, by --resume; "
                "or choose another folder."
            )
        best: Direction = "maximize" if wanted.sign > 0 else "minimize"
        directions: list[Direction] = [best if one == "score" else "minimize" for one in self.objectives]
        return Study(folder, self.ranged.ranges, directions, self.question(), self.engine.task.seed)

    def run(self, most: int | None, seconds: float, resume: bool) -> None:
        """Carry out trials until there are enough, or time is up; then wait for those that others have under way."""
        self.study, deadline = self.begin(resume), Deadline(seconds)
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

    def carry_out(self, turn: int, drawn: dict[str, Any]) -> tuple[list[float] | None, dict[str, float]]:
        """Run the recipe at a point, and return what the study wants to know."""
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
        return (values if known else None), trial.over

    def trials(self) -> list[Trial]:
        """Return all finished trials, in order.  Raises BadFile for a note that is gone or damaged."""
        found = {one.number: one for one in self.engine.noted()}
        ended = self.study.ended()
        gone = [turn for turn in ended if turn not in found]
        if gone:
            path = self.engine.folder_of(gone[0]) / NOTE
            raise BadFile(f"search: {path} is gone. Delete the folder and start again.")
        return [found[turn] for turn in ended]


def require_optuna() -> None:
    """Raise MissingPackage where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingPackage(
            "search: trials are drawn by optuna, which is not installed. pip install -e '.[search]' in Cortado's folder "
            "brings it; compress --limit, without a recipe, plans without it."
        ) from error
