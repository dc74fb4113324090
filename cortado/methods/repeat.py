"""repeat: a few stages, several times, gently."""

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cortado.errors import BadValue
from cortado.methods.method import Method, knob
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class Repeat(Method):
    """Run `rounds`, each a tuple of methods, one after another.

    In a recipe: `repeat: {times: 3, do: [...]}`; there a knob given as a list has one value for each round, so that
    `prune/weights: {keep: [0.5, 0.3, 0.1]}` prunes a little more each time. Moments are matched inside where `match_moments` is
    one of the stages: `do: [prune/channels: {keep: 0.9}, match, finetune]`.
    """

    lossy = True
    trains = True

    rounds: tuple[Any, ...] = knob((), help="the stages of each round, in order")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rounds or not all(isinstance(stage, Method) for stages in self.rounds for stage in stages):
            raise BadValue("repeat: rounds must be tuples of methods, got none. Write repeat: {times: 2, do: [...]}.")
        if self.where != "*":
            raise BadValue(
                f"repeat: where must stay with the stages inside, got {self.where!r}. Write it in each of them."
            )

    def apply(self, view: View, task: Task) -> None:
        reference, kept = view.reference, view.kept
        for stages in self.rounds:
            for stage in stages:
                if stage.lossy and not stage.trains:
                    fold(view, kept)
                    reference, kept = copy.deepcopy(view.network), {}
                # What a cut has left is what `match_moments` compares with the network before it.
                inner = View(view.network, view.original, view.example, view.progress, reference, kept)
                inner.notes = view.notes
                stage.apply(inner, task)
        fold(view, kept)


def fold(view: View, kept: dict[str, Tensor]) -> None:
    """What was kept since the last reference, for the view whose reference is older."""
    if kept is not view.kept:
        view.remember(kept)
