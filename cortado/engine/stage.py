"""Stage: the one way to apply a method to a network."""

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from cortado.engine.changes import Changes
from cortado.errors import CortadoError, Failed, NothingChanged, describe
from cortado.file.entries import entries_of, put, stored_at
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method
from cortado.network.view import View
from cortado.progress import Progress
from cortado.task.task import Task
from cortado.training.finalize import finalize


@dataclass(frozen=True)
class State:
    """A network between two stages.

    `original` is the user's network as it came and is never changed. `reference` is the network before the last lossy
    stage, whose moments are given back; `kept` names, for each layer with other outputs than there, which of them are
    left. `notes` are the last stage's. `fresh`: nothing was done yet, so that the original stands for the network.
    """

    network: nn.Module
    original: nn.Module
    example: Any
    reference: nn.Module
    kept: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fresh: bool = False


def start(network: nn.Module, original: nn.Module, example: Any) -> State:
    """Return the state of a network that was made from `original` and is worked on in place from now on."""
    return State(network, original, example, original)


def begin(original: nn.Module, example: Any) -> State:
    """Return the state before the first stage: a copy of the original network as a file would give it back.

    Raises BadNetwork when forms hold its weights already.
    """
    network = copy.deepcopy(original)
    modules = dict(network.named_modules())
    for entry in entries_of(network):
        value = stored_at(network, entry)
        if isinstance(value, Tensor) and not value.is_contiguous():
            put(modules, entry, value.contiguous())
    return replace(start(network.eval(), original, example), fresh=True)


def apply_stage(
    method: Method, state: State, task: Task, *, match: bool = True, following: Method | None = None, where: str = "",
    progress: Progress | None = None, check: bool = True, last: bool = False,
) -> State:  # fmt: skip
    """Apply a method to `state.network`, in place, and return the state afterwards.

    After a stage that loses moments these are matched, unless `match_moments` is False, `following` does just that, or no matrix
    and no rounding of activations changed. `last` finalizes what is latent. `where` ("stage 2 (finetune)") begins every
    message. Raises NothingChanged, where `check` asks for it, Failed for what is no error of ours, and what the method raises.
    """
    renews = loses_moments(method)
    before = state.reference
    if renews or check:
        before = state.original if state.fresh else copy.deepcopy(state.network)
    reference, kept = (before, {}) if renews else (state.reference, dict(state.kept))
    view = View(state.network, state.original, state.example, progress, reference, kept)
    carry_out(method, view, task, where)
    changes = Changes(before, state.network, view.touched)
    if check and not method.matches and not changes.any(values_only=method.lossy):
        raise NothingChanged(
            f"{where or method.name()}: it changed nothing. Check its pattern (where: {method.where}) and its amounts, or "
            "leave the stage out."
        )
    if match and renews and not (following is not None and following.matches) and changes.matrices():
        MatchMoments().apply(view, task)
    if last:
        finalize(state.network)
    return replace(state, reference=reference, kept=view.kept, notes=tuple(view.notes), fresh=False)


def carry_out(method: Method, view: View, task: Task, where: str) -> None:
    """Apply the method; its errors say in which stage they came up."""
    try:
        method.apply(view, task)
    except CortadoError as error:
        if not where:
            raise
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:
        raise Failed(
            f"{where or method.name()}: it ended with {describe(error)}. Mend what raised it, or leave the stage out."
        ) from error


def loses_moments(method: Method) -> bool:
    """Return whether the moments of the network before this method are given back, until the next such method."""
    return method.lossy and not method.trains
