"""Study: the trials of a search in a folder, from which several processes draw, and of which none is lost when one is killed.

Optuna's journal is a file of lines that are only added to, read again by whoever draws. Every reading and writing happens
under a lock of the operating system, and each running trial holds one of its own: a lock ends with its process, however it
ends, so that a trial that runs without one is dead, and is drawn again with the same values. SQLite would need the same
locks and has a database to mend besides.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from cortado.errors import BadValue, MissingPackage
from cortado.planner.search.ranges import Range

JOURNAL, LOCK, TRIALS = "study.journal", "study.lock", "trials"
NAME, TURN, QUESTION = "trials", "turn", "question"
FIRST = 8
"""Trials that are drawn at random, before there is anything to learn from."""


@dataclass
class Drawn:
    """A trial to be carried out: its number, counted from 1, its folder, and a value for each range by its name."""

    turn: int
    folder: Path
    point: dict[str, Any]
    trial: Any
    attached: IO[str]


class AlreadyAlone:
    """What Optuna asks to lock its journal: nothing, as the study's own lock is held whenever it is written."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        """Nothing is held."""


class Study:
    """The trials in a folder.  `question` says what is searched for; only who asks the same may join."""

    def __init__(
        self, folder: Path, ranges: Sequence[Range], directions: Sequence[str], question: dict[str, Any], seed: int
    ) -> None:
        """Begins the study, or joins it.  Raises MissingPackage, and BadValue where the folder holds another one."""
        self.folder, self.seed, self.optuna = folder, seed, the_optimiser()
        folder.mkdir(parents=True, exist_ok=True)
        self.spans = {one.name: self.distribution(one) for one in ranges}
        with alone(folder):
            repair(folder / JOURNAL)
            with self.silence():
                backend = self.optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL), AlreadyAlone())
                self.study = self.optuna.create_study(
                    storage=self.optuna.storages.JournalStorage(backend), study_name=NAME,
                    directions=list(directions), load_if_exists=True,
                )  # fmt: skip
            known = self.study.user_attrs.get(QUESTION)
            if known is None:
                self.study.set_user_attr(QUESTION, question)
        others = [key for key in question if known is not None and known.get(key) != question[key]]
        if others:
            raise BadValue(
                f"search: {folder} holds a search with another {' and another '.join(others)}. Choose another folder."
            )

    def distribution(self, one: Range) -> Any:
        """A range as Optuna knows it."""
        of = self.optuna.distributions
        if one.one_of:
            return of.CategoricalDistribution(one.one_of)
        if one.whole:
            return of.IntDistribution(int(one.low), int(one.high), log=one.even_ratios)
        return of.FloatDistribution(one.low, one.high, log=one.even_ratios)

    def draw(self, most: int | None) -> Drawn | None:
        """The next trial; None where `most` have been drawn.  One whose process died comes first.

        What is drawn depends on the seed, the trial's number and what was told before, not on who draws.
        """
        with self.at_once():
            self.requeue()
            trials = self.trials()
            used = {one.user_attrs[TURN] for one in trials}
            begun = {one.user_attrs[TURN] for one in trials if one.state != self.optuna.trial.TrialState.WAITING}
            if most is not None and len(begun) >= most:
                return None
            turn = next(number for number in range(1, len(used) + 2) if number not in used)
            # NumPy's old generators take 32 bits.
            seed = (self.seed * 1_000_003 + turn) % 2**32
            self.study.sampler = self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=FIRST, multivariate=True)
            trial = self.study.ask(self.spans)
            if TURN in trial.user_attrs:
                turn = trial.user_attrs[TURN]
            else:
                trial.set_user_attr(TURN, turn)
            folder = self.folder_of(turn)
            folder.mkdir(parents=True, exist_ok=True)
            attached = locked(folder / LOCK, wait=False)
            assert attached is not None
            return Drawn(turn, folder, dict(trial.params), trial, attached)

    def requeue(self) -> None:
        """Trials whose processes died: ended, and drawn again with the same values and in the same folder."""
        states = self.optuna.trial.TrialState
        for one in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            turn = one.user_attrs.get(TURN)
            attached = None if turn is None else locked(self.folder_of(turn) / LOCK, wait=False)
            if turn is not None and attached is None:
                continue
            self.study.tell(one.number, state=states.FAIL)
            if attached is not None:
                attached.close()
                self.study.enqueue_trial(one.params, user_attrs={TURN: turn})

    def tell(self, drawn: Drawn, values: Sequence[float] | None, over: dict[str, float]) -> None:
        """What came out: a value for each direction, and by how much each limit is exceeded; None for one that was refused."""
        with self.at_once():
            for limit, amount in over.items():
                drawn.trial.set_constraint(limit, amount)
            state = self.optuna.trial.TrialState.PRUNED if values is None else None
            self.study.tell(drawn.trial, values, state=state)
        drawn.attached.close()

    def running(self) -> set[int]:
        """The trials that are under way, or were when their processes died."""
        with self.at_once():
            states = self.optuna.trial.TrialState
            return {one.user_attrs[TURN] for one in self.trials() if one.state in (states.RUNNING, states.WAITING)}

    def ended(self) -> list[int]:
        """The trials of which something was told, in order."""
        with self.at_once():
            return sorted(one.user_attrs[TURN] for one in self.trials() if one.state.is_finished())

    def trials(self) -> list[Any]:
        """All but those whose processes died."""
        fail = self.optuna.trial.TrialState.FAIL
        every = self.study.get_trials(deepcopy=False)
        return [one for one in every if one.state != fail and TURN in one.user_attrs]

    def folder_of(self, turn: int) -> Path:
        return self.folder / TRIALS / f"{turn:03}"

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Nobody else reads or writes meanwhile, and nothing is said."""
        with alone(self.folder), self.silence():
            repair(self.folder / JOURNAL)
            yield

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Optuna says nothing but warnings, and then as much as before."""
        loud = self.optuna.logging.get_verbosity()
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        try:
            yield
        finally:
            self.optuna.logging.set_verbosity(loud)


def repair(journal: Path) -> None:
    """Cut off a last line that is not whole: what a process wrote when it was killed.  Only under the study's lock."""
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0 or (file.seek(end - 1), file.read(1))[1] == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time in this folder; the others wait."""
    attached = locked(folder / LOCK, wait=True)
    assert attached is not None
    try:
        yield
    finally:
        attached.close()


def locked(path: Path, wait: bool) -> IO[str] | None:
    """The open file, locked until it is closed or its process ends; None where another one has it and we do not wait.

    Raises BadValue where files cannot be locked.
    """
    try:
        import fcntl
    except ImportError as error:
        raise MissingPackage("search: it needs file locks as Unix has them. Run it there, or in WSL.") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise BadValue(
            f"search: {path} cannot be locked ({error.strerror}). Choose a folder on another disk."
        ) from error
    return file


def the_optimiser() -> ModuleType:
    """The package that draws trials.  Raises MissingPackage."""
    try:
        import optuna
    except ImportError as error:
        raise MissingPackage(
            "search: trials are drawn by optuna, which is not installed. pip install -e '.[search]' in Cortado's folder "
            "brings it; compress --limit, without a recipe, plans without it."
        ) from error
    return optuna
