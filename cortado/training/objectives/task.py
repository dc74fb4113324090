"""task: the task's own loss."""

from dataclasses import dataclass
from typing import ClassVar

from cortado.training.objectives.objective import Objective, Terms, TrainingStep


@dataclass(frozen=True)
class TaskLoss(Objective):
    """The task's loss between outputs and targets."""

    recordable: ClassVar[bool] = True
    labelled: ClassVar[bool] = True

    def terms(self, step: TrainingStep) -> Terms:
        return {"task": step.loss(step.outputs, step.targets)}
