"""distill/logits: train on the softened outputs of one teacher or several."""

from dataclasses import dataclass
from typing import Any

from cortado.knobs.nested import flat_knobs
from cortado.methods.learn import SEVERAL, learn
from cortado.methods.method import Method, knob
from cortado.methods.needs import LEARNS, Leaves
from cortado.network.view import View
from cortado.task.task import Task
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.task import TaskLoss
from cortado.training.teachers import check_teacher
from cortado.training.training import Training


@flat_knobs
@dataclass(frozen=True)
class DistillLogits(Method):
    """loss = hard x task loss + soft x T^2 x KL(teacher at T || network at T).  Hinton, Vinyals, Dean, 2015."""

    trains = True
    needs = (LEARNS,)
    leaves = (Leaves.FLOATS,)
    training: Training = knob(Training(), help="how to train")
    teacher: Any = knob("original", help=SEVERAL, check=check_teacher)
    temperature: float = knob(4.0, low=0.05, help="softmax temperature of both outputs")
    hard: float = knob(0.3, low=0.0, help="weight of the task's own loss")
    soft: float = knob(0.7, low=0.0, help="weight of the distillation loss")

    def apply(self, view: View, task: Task) -> None:
        learned = TaskLoss(self.hard), Logits(self.soft, self.temperature)
        learn(view, task, self.training, learned, self.teacher, self.where, self.name())
