"""Learns from: what methods share that train on objectives and teachers of the user's choice."""

from abc import ABC
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cortado.errors import BadValue
from cortado.methods.method import Method, knob
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.objective import Objective, read_objectives
from cortado.training.objectives.task import TaskLoss
from cortado.training.teachers import check_teacher
from cortado.training.training import Training

LEARNS_FROM = (
    "what to learn from: task, logits or other objectives, by name or {name: {knob: value}}, or package.module:Class"
)
TEACHER = (
    "original, before (as this stage finds the network), package.module:maker, {network: maker, options: {...}, weights: "
    "file}, a network, or a list of them; a number is the short form of: the original, with this share for logits at "
    "temperature 4, and the rest for task"
)
TASK_ALONE = (TaskLoss(),)


@dataclass(frozen=True)
class LearnsFrom(Method, ABC):
    """A method that trains: how, with which teachers, and from what; by default from the task's loss alone."""

    training: Training = knob(Training(), help="how to train")
    teacher: float | str | nn.Module | dict[str, Any] | tuple[Any, ...] | list[Any] = knob(
        "original", low=0.0, high=1.0, help=TEACHER
    )
    objectives: tuple[Any, ...] | list[Any] = knob(TASK_ALONE, help=LEARNS_FROM)

    def __post_init__(self) -> None:
        super().__post_init__()
        write_out(self)


def write_out(method: Any) -> None:
    """Read the objectives of a method, and write out the short form of its teacher."""
    objectives = read_objectives(method.objectives, method.name())
    if isinstance(method.teacher, list):
        object.__setattr__(method, "teacher", tuple(method.teacher))
    if isinstance(method.teacher, (int, float)):
        objectives = with_teacher(objectives, method.teacher, method.name())
        object.__setattr__(method, "teacher", "original")
    object.__setattr__(method, "objectives", objectives)
    if method.teacher != "original":
        check_teacher(method.teacher, method.name())
        check_read(objectives, method.name())


def check_read(objectives: tuple[Objective, ...], where: str) -> None:
    """Raise BadValue where no objective learns from a teacher."""
    if not any(one.taught for one in objectives):
        names = ", ".join(one.name() for one in objectives)
        raise BadValue(
            f"{where}: a teacher is given, and no objective learns from it, got objectives: [{names}]. Add one, such as "
            f"objectives: [{names}, logits], or leave out teacher."
        )


def with_teacher(objectives: tuple[Objective, ...], share: float, where: str) -> tuple[Objective, ...]:
    """Return the objectives with a share of the task's for the teacher's logits.  Raises BadValue if they have logits."""
    if any(isinstance(one, Logits) for one in objectives):
        raise BadValue(f"{where}: teacher={share:g} and the objective logits are both given. Give logits its weight.")
    kept = [replace(one, weight=one.weight * (1.0 - share)) if isinstance(one, TaskLoss) else one for one in objectives]
    at = max((number for number, one in enumerate(kept, 1) if isinstance(one, TaskLoss)), default=0)
    taught = [Logits(weight=share, temperature=4.0)] if share else []
    return (*kept[:at], *taught, *kept[at:])
