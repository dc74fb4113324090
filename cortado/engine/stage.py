"""Stage: the one way to apply a method to a network."""

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from cortado.engine.fingerprints import matrices, picture
from cortado.errors import NothingChanged
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method
from cortado.network.view import View
from cortado.progress import Progress, quiet
from cortado.task.task import Task


@dataclass(frozen=True)
class State:
    """A network between two stages; `reference` is what it was before the last lossy one, whose moments are given back."""

    network: nn.Module
    original: nn.Module
    example: Any
    reference: nn.Module | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def start(network: nn.Module, original: nn.Module, example: Any) -> State:
    """Return the state before the first stage; `network` itself is what the stages will change."""
    return State(network, original, example)


def apply_stage(
    method: Method,
    state: State,
    task: Task,
    *,
    match: bool = True,
    progress: Progress | None = None,
    check: bool = True,
) -> State:
    """Apply a method to the state's network in place, with its moments matched where they are lost, and return the new state.

    Raises NothingChanged where `check` finds that nothing was changed, and whatever the method raises.
    """
    due = match and method.lossy and not method.trains
    before, matmul_layers = (picture(state.network) if check else None), (matrices(state.network) if due else b"")
    if due:
        state = replace(state, reference=copy.deepcopy(state.network), kept={})
    view = View(state.network, state.original, state.example, progress or quiet(), state.reference, dict(state.kept))
    method.apply(view, task)
    if before is not None and before == picture(state.network) and not isinstance(method, MatchMoments):
        raise NothingChanged(f"{method.name()}: it changed nothing. Check its pattern (where: {method.where}).")
    if due and matrices(state.network) != matmul_layers:
        MatchMoments().apply(view, task)
    return replace(state, kept=view.kept, notes=tuple(view.notes))
