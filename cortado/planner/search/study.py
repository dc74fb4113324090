"""Study: the trials of a search in Optuna's database, shared by several processes.

A running trial sends heartbeats. If its process dies, Optuna fails it after GRACE seconds, and it is queued again with the
same values.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.storages.journal import JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from cortado.errors import BadValue
from cortado.planner.search.n2n import Policy, RemoveThenShrink, Rewarded
from cortado.planner.search.ranges import Range

DATABASE, NAME, QUESTION, SURPLUS, REWARD = "study.db", "trials", "question", "surplus", "reward"
RETRIED = "failed_trial"
"""Optuna's attribute for the number of the trial that this one repeats."""
FIRST = 8
"""Trials drawn at random before the sampler starts to learn."""
HEARTBEAT = 5
"""Seconds between two heartbeats of a running trial."""
GRACE = 60
"""Seconds without a heartbeat after which a trial counts as dead, and the age at which a lock counts as stale."""

Objective = Callable[[int, dict[str, Any]], tuple[Sequence[float] | None, dict[str, float], float]]
"""Maps a trial's number (from 1) and its drawn values to a value for each direction, None if refused, the excess over each
limit, and the reward."""
Direction = Literal["minimize", "maximize"]


class Seeded(optuna.samplers.TPESampler):
    """The sampler, reseeded for each trial: draws depend on the seed, the trial's number and earlier results, not on the
    process."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        # NumPy's legacy generators take 32 bits.
        seed = (self.seed * 1_000_003 + turn_of(study, trial.number)) % 2**32
        super().__init__(seed=seed, n_startup_trials=FIRST, multivariate=True)
        super().before_trial(study, trial)


class SeededRandom(optuna.samplers.RandomSampler):
    """Draws at random, reseeded for each trial in the same way."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        super().__init__(seed=(self.seed * 1_000_003 + turn_of(study, trial.number)) % 2**32)
        super().before_trial(study, trial)


class DrawnByPolicy(optuna.samplers.BaseSampler):
    """Asks a policy for all values of a trial, with the points and the rewards of the trials that have ended."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.drawn: dict[int, dict[str, Any]] = {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        ended = [one for one in study.get_trials(deepcopy=False) if REWARD in one.user_attrs]
        known = {turn_of(study, one.number): Rewarded(one.params, one.user_attrs[REWARD]) for one in ended}
        turn = turn_of(study, trial.number)
        self.drawn[trial.number] = self.policy.draw(turn, [known[one] for one in sorted(known) if one < turn])

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """Return nothing: all values are asked for one by one."""
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: Any) -> Any:
        """Return the policy's value."""
        return self.drawn[trial.number][name]


def sampler_named(name: str, ranges: Sequence[Range], seed: int, most: int | None) -> optuna.samplers.BaseSampler:
    """Return the sampler of a name in SAMPLERS."""
    if name == "n2n":
        return DrawnByPolicy(RemoveThenShrink.of(ranges, seed, most))
    return Seeded(seed) if name == "tpe" else SeededRandom(seed)


class Study:
    """The trials in a folder.  Only a search with the same `question` (recipe, goal, network, task) may join."""

    def __init__(
        self,
        folder: Path,
        ranges: Sequence[Range],
        directions: Sequence[Direction],
        question: dict[str, Any],
        seed: int,
        sampler: str = "tpe",
        most: int | None = None,
    ) -> None:
        """Start the study, or join it.  Raises BadValue if the folder holds another search."""
        self.ranges = ranges
        with alone(folder), quiet_optuna():
            storage = RDBStorage(
                f"sqlite:///{(folder / DATABASE).absolute()}", {"connect_args": {"timeout": GRACE}},
                heartbeat_interval=HEARTBEAT, grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )  # fmt: skip
            self.study = optuna.create_study(
                storage=storage, study_name=NAME, directions=list(directions), load_if_exists=True,
                sampler=sampler_named(sampler, ranges, seed, most),
            )  # fmt: skip
            known = self.study.user_attrs.get(QUESTION)
            if known is None:
                self.study.set_user_attr(QUESTION, question)
        others = [key for key in question if known is not None and known.get(key) != question[key]]
        if others:
            raise BadValue(
                f"search: {folder} holds a search with another {' and another '.join(others)}. Choose another folder."
            )

    def open(self, most: int | None) -> bool:
        """Return whether a trial is queued, or fewer than `most` were started."""
        waiting = any(one.state == TrialState.WAITING for one in self.found())
        return waiting or most is None or len(fresh(self.found())) < most

    def under_way(self) -> bool:
        """Return whether other processes are still running trials; trials of dead processes are queued again."""
        with quiet_optuna():
            fail_stale_trials(self.study)
        return any(not one.state.is_finished() for one in self.found())

    def carry_out(self, most: int | None, objective: Objective) -> None:
        """Draw and run the next trial.  On an error the trial is queued again and the error raised.

        The result is dropped if other processes have meanwhile started the last of `most` trials, or have taken this
        process for dead and repeated the trial.
        """
        repeated = False

        def reported(trial: optuna.Trial) -> Sequence[float]:
            nonlocal repeated
            turn = turn_of(self.study, trial.number)
            if most is not None and turn > most:
                trial.set_user_attr(SURPLUS, True)
                raise Surplus
            try:
                values, over, reward = objective(turn, {one.name: suggested(trial, one) for one in self.ranges})
            except BaseException:
                RetryHeartbeatStaleTrialCallback()(self.study, self.found()[trial.number])
                raise
            repeated = self.found()[trial.number].state != TrialState.RUNNING
            if repeated:
                raise Surplus
            for limit, amount in over.items():
                trial.set_constraint(limit, amount)
            trial.set_user_attr(REWARD, reward)
            if values is None:
                raise optuna.TrialPruned
            return values

        with quiet_optuna():
            try:
                self.study.optimize(reported, n_trials=1, catch=(Surplus,))
            except ValueError:
                # Optuna rejects the result of a trial that it has failed already.
                if not repeated:
                    raise

    def ended(self) -> list[int]:
        """Return the numbers of the finished trials, in order."""
        reported = [one for one in self.found() if one.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        return sorted({turn_of(self.study, one.number) for one in reported})

    def found(self) -> list[FrozenTrial]:
        """Return all trials."""
        return self.study.get_trials(deepcopy=False)


class Surplus(Exception):
    """More trials were started than requested, because several processes drew at once."""


def fresh(trials: Sequence[FrozenTrial]) -> list[int]:
    """Return Optuna's numbers of the trials that are neither repeats nor surplus."""
    return [one.number for one in trials if RETRIED not in one.system_attrs and SURPLUS not in one.user_attrs]


def turn_of(study: optuna.Study, number: int) -> int:
    """Return the trial's number from 1; a repeat has the number of the trial it repeats."""
    trials = study.get_trials(deepcopy=False)
    number = trials[number].system_attrs.get(RETRIED, number)
    return sum(one <= number for one in fresh(trials))


def suggested(trial: optuna.Trial, one: Range) -> Any:
    """Return the sampler's value for a range."""
    if one.one_of:
        return trial.suggest_categorical(one.name, one.one_of)
    suggest: Any = trial.suggest_int if one.whole else trial.suggest_float
    low, high = (int(end) if one.whole else end for end in (one.low, one.high))
    return suggest(one.name, low, high, log=one.even_ratios)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; a lock older than GRACE seconds counts as stale."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(folder / "study"), grace_period=GRACE)
    lock.acquire()
    try:
        yield
    finally:
        # After GRACE seconds another process may have taken the lock.
        with contextlib.suppress(RuntimeError):
            lock.release()


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log and its warnings about experimental features."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
