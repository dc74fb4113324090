"""exits: every answer of a network that can stop early learns, not only the one that it returns."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.knobs.knob import knob
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.blocks.rows import FirstSure
from cortado.task.task import Task
from cortado.training.objectives.counted import counted_outputs
from cortado.training.objectives.logits import distillation
from cortado.training.objectives.objective import ARGUMENT, Objective, Taps, Terms, TrainingStep


@dataclass(frozen=True)
class Exits(Objective):
    """The sum of the task's loss over all answers of which the network returns the first sure one.

    The joint training of BranchyNet (Teerapittayanon et al., 2016) and MSDNet (Huang et al., 2018), for every FirstSure in
    a network. It takes the place of `task`, which learns only from the answers that are returned. With `distill`, earlier
    answers learn that share from the last one instead: T^2 x KL(last at T || earlier at T), which leaves the last one as
    it is (Zhang et al., 2019).
    """

    recordable: ClassVar[bool] = True
    labelled: ClassVar[bool] = True
    places: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """How many answers each FirstSure of the network has, by path; set on a copy."""

    weights: tuple[Any, ...] | list[Any] = knob(
        (), low=0.0, help="factors of the answers' losses, earliest first; all 1 if empty"
    )
    distill: float = knob(
        0.0, low=0.0, high=1.0, help="share that earlier answers learn from the last one, not from labels"
    )
    temperature: float = knob(3.0, low=0.05, help="softmax temperature T of `distill`")

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        super().__post_init__()

    def on(self, view: View, weights: list[Weight], task: Task) -> Objective:
        places = {
            path: len(one.choices) + 1 for path, one in view.network.named_modules() if isinstance(one, FirstSure)
        }
        if not places:
            raise BadNetwork(
                "objectives/exits: the network has no answers to choose from. Give it exits first, or learn from task."
            )
        for path, count in places.items():
            if self.weights and len(self.weights) != count:
                raise BadValue(
                    f"objectives/exits: weights must be as many as {path} has answers, {count}, got {len(self.weights)}."
                )
        made = copy.copy(self)
        vars(made)["places"] = places
        return made

    def taps(self) -> Taps:
        return Taps(tuple(tap for path, count in self.places.items() for tap in taps_of(path, count)))

    def terms(self, step: TrainingStep) -> Terms:
        if not self.places:
            raise BadValue(
                "objectives/exits: it knows no answers yet. Train with what on(view, view.weights(), task) returns."
            )
        found = {}
        for number, (path, count) in enumerate(self.places.items()):
            answers = [step.taps[tap] for tap in taps_of(path, count)]
            for place, value in enumerate(self.losses(answers, step), 1):
                found[f"exit {place}" + f" of {path}" * (number > 0)] = value
        return found

    def losses(self, answers: Sequence[Tensor], step: TrainingStep) -> list[Tensor]:
        """Return the weighted loss of each answer (N, C, ...), earliest first."""
        last, weights = answers[-1], self.weights or (1.0,) * len(answers)
        soft = functional.softmax(last.detach() / self.temperature, 1)
        places = tuple(size for axis, size in enumerate(last.shape) if axis != 1)
        counted = counted_outputs(step, last.shape[1], places) if self.distill else None
        found = []
        for answer, weight in zip(answers, weights, strict=True):
            share = 0.0 if answer is last else self.distill
            value = step.loss(answer, step.targets) if share < 1 else torch.zeros_like(soft[:1].sum())
            if share:
                value = (1 - share) * value + share * distillation(answer, soft, self.temperature, counted=counted)
            found.append(weight * value)
        return found


def taps_of(path: str, count: int) -> list[str]:
    """Return the taps of what enters a FirstSure with so many answers."""
    return [f"{path}{ARGUMENT}{number}" for number in range(1, count + 1)]
