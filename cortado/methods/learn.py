"""Learn: what every method that trains does with its knobs: objectives, teachers, the chosen weights and the curves."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from cortado.network.view import View
from cortado.running.devices import place_of_training
from cortado.task.task import Task
from cortado.training.learning import only_learning
from cortado.training.loop import train
from cortado.training.objectives.objective import Objective
from cortado.training.teachers import notes_on_teachers, teachers_of
from cortado.training.training import Training

SEVERAL = (
    "original, before, package.module:maker, {network: maker, options: {...}, weights: file}, a network, or several, "
    "whose mean teaches"
)
"""What a teacher may be, where several teach together."""


def learn(
    view: View, task: Task, training: Training, objectives: Sequence[Objective], teacher: Any, where: str, label: str,
    found: nn.Module | None = None,
) -> None:  # fmt: skip
    """Train the weights that `where` selects on these objectives, with the teachers that `teacher` names if one needs them.

    `found` is the network as the stage found it, for `teacher: before`, where the method has changed it already. Raises what
    `train` raises, and BadRecipe for a teacher that cannot be made.
    """
    weights = view.weights(where)
    teachers = teachers_of(teacher, view, found) if any(one.taught for one in objectives if one.weight) else []
    used = [one.on(view, weights, task) for one in objectives]
    if teachers:
        used = [one.with_teachers(teachers, view, task) for one in used]
    with only_learning(view, None if where == "*" else weights):
        trained = train(
            view.network, task, training, objectives=used, teachers=teachers, seed=task.seed, label=label,
            progress=view.progress,
        )  # fmt: skip
    view.curves |= trained.curves
    hindrances = [sentence for one in used for sentence in one.hindrances(trained.curves)]
    view.hindrances += hindrances
    view.notes += [
        *place_of_training(view.network, task.device), *trained.traffic.notes(), *notes_on_teachers(teachers, view, task),
        *hindrances,
    ]  # fmt: skip
