"""Stage: the one way to apply a method to a network."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cortado.engine.changes import Changes
from cortado.engine.given_up import given_up
from cortado.errors import CortadoError, Failed, NothingChanged, describe
from cortado.file.entries import check_original, entries_of, put_entry, stored_at
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method
from cortado.network.finalize import finalize
from cortado.network.view import View
from cortado.progress import Progress
from cortado.running.memory import give_back_freed
from cortado.task.task import Task

Done = TypeVar("Done")


@dataclass(frozen=True)
class State:
    """A network between two stages.

    `original` is the user's network and is never changed. `base` is the network that this one was made from and that files
    are written against: the original, or a student as it came. `reference` is the network before the last lossy stage, whose
    moments are restored; `kept` has the remaining outputs of each layer that lost some since then, `survivors` since the
    base; None where that is not known. `notes` and `curves` are the last stage's. `fresh`: no stage has changed the base
    yet, so it equals the network.
    """

    network: nn.Module
    original: nn.Module
    example: Any
    reference: nn.Module
    base: nn.Module
    kept: dict[str, Tensor] = field(default_factory=dict)
    survivors: dict[str, Tensor] | None = None
    notes: tuple[str, ...] = ()
    curves: dict[str, list[float]] = field(default_factory=dict)
    fresh: bool = False

    def cuts_as_data(self) -> dict[str, Any]:
        """Return `kept` and `survivors` as plain data."""
        found = {"kept": self.kept, "survivors": self.survivors or {}}
        return {name: {path: rows.tolist() for path, rows in known.items()} for name, known in found.items()}


Cuts = tuple[dict[str, Tensor], dict[str, Tensor]]
"""`kept` and `survivors` of a state."""


def cuts_from(data: Mapping[str, Any]) -> Cuts:
    """Return `kept` and `survivors` from plain data."""
    kept, survivors = (
        {path: torch.tensor(rows) for path, rows in data.get(name, {}).items()} for name in ("kept", "survivors")
    )
    return kept, survivors


def start(network: nn.Module, original: nn.Module, example: Any) -> State:
    """Return the state of a network made from `original`, to be edited in place."""
    return State(network, original, example, original, original)


def begin(original: nn.Module, example: Any) -> State:
    """Return the state before the first stage: a copy of the original network, laid out as a file would load it.

    Raises BadNetwork if its weights already have forms.
    """
    check_original(original)
    network = copy.deepcopy(original)
    modules = dict(network.named_modules())
    for entry in entries_of(network):
        value = stored_at(network, entry)
        if isinstance(value, Tensor) and not value.is_contiguous():
            put_entry(modules, entry, value.contiguous())
    return replace(start(network.eval(), original, example), survivors={}, fresh=True)


def begin_again(base: nn.Module, state: State) -> State:
    """Return the state before the first stage on another network than the original, which still teaches."""
    return replace(begin(base, state.example), original=state.original)


def view_of(state: State, progress: Progress | None = None) -> View:
    """Return what methods see of a state."""
    survivors = None if state.survivors is None else dict(state.survivors)
    return View(
        state.network, state.original, state.example, progress, state.reference, state.kept, survivors, state.base
    )


def apply_stage(
    method: Method, state: State, task: Task, *, match_moments: bool = True, following: Method | None = None, where: str = "",
    progress: Progress | None = None, check: bool = True, last: bool = False,
) -> State:  # fmt: skip
    """Apply a method to `state.network`, in place, and return the new state; one that restarts leaves it for another network.

    A stage that loses moments is followed by moment matching, unless `match_moments` is False, `following` does it, or no
    matrix and no activation quantizer changed. `last` finalizes latent weights. `where` ("stage 2 (finetune)") starts every
    message. With `check`, the method's needs are asked for first. Raises NothingChanged if one is not met or nothing
    changed with `check`, what the method raises, and Failed for errors that are not Cortado's.
    """
    renews = loses_moments(method)
    before = state.reference
    if renews or check:
        before = state.base if state.fresh else copy.deepcopy(state.network)
    reference, kept = (before, {}) if renews else (state.reference, dict(state.kept))
    view = view_of(replace(state, reference=reference, kept=kept), progress)
    unmet = carry_out(method.unmet, method, view, task, where) if check else ""
    if unmet:
        raise NothingChanged(f"{where or method.name()}: {unmet}")
    carry_out(method.apply, method, view, task, where)
    give_back_freed()
    if method.restarts:
        return replace(begin_again(view.base, state), notes=tuple(view.notes), curves=view.curves)
    state = replace(state, network=view.network)
    changes = Changes(before, state.network, view.touched)
    if check and not method.matches and not changes.any(values_only=method.lossy):
        raise NothingChanged(f"{where or method.name()}: it changed nothing. {what_to_check(method, view)}")
    if match_moments and renews and not (following is not None and following.matches) and changes.matrices():
        MatchMoments().apply(view, task)
    if last:
        finalize(state.network)
    # What no one has compressed yet has nothing to give up.
    lost = given_up(before, state.network) if check and not state.fresh else []
    return replace(
        state, reference=reference, kept=view.kept, survivors=view.survivors, notes=(*view.notes, *lost),
        curves=view.curves, fresh=False,
    )  # fmt: skip


def what_to_check(method: Method, view: View) -> str:
    """Return what to do about a stage that changed nothing: what the method says itself, or else where to look."""
    if view.hindrances:
        return " ".join(view.hindrances)
    learned = ", above all what it learns from: terms that are 0 teach nothing" if method.trains else ""
    return f"Check its pattern (where: {method.where}) and its knobs{learned}, or leave the stage out."


def carry_out(act: Callable[[View, Task], Done], method: Method, view: View, task: Task, where: str) -> Done:
    """Ask what a method needs, or apply it, with torch's random numbers from the seed; prefix errors with the stage."""
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(task.seed)
            return act(view, task)
    except CortadoError as error:
        if not where:
            raise
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:
        raise Failed(
            f"{where or method.name()}: it ended with {describe(error)}. Fix the cause, or leave the stage out."
        ) from error


def loses_moments(method: Method) -> bool:
    """Return whether the moments before this method are restored afterwards: it is lossy and does not train."""
    return method.lossy and not method.trains
