"""distill/logits: learn from the softened outputs of a teacher, or of several."""

from dataclasses import dataclass
from typing import Any

from cortado.methods.method import Method, knob
from cortado.network.view import View
from cortado.running.devices import place_of_training
from cortado.task.task import Task
from cortado.training.learning import only_learning
from cortado.training.loop import OPTIMIZERS, Training, train
from cortado.training.teachers import teachers_of


@dataclass(frozen=True)
class DistillLogits(Method):
    """loss = hard x task loss + soft x T^2 x KL(teacher at T || network at T).  Hinton, Vinyals, Dean, 2015.

    `teacher` is "original" (the network as it came), "package.module:maker", a network, or a tuple of those: the mean of
    their probabilities teaches (an ensemble).
    """

    trains = True

    teacher: Any = knob("original", help="plain, package.module:maker, a network, or a tuple of them")
    epochs: float = knob(1.0, low=0.0, help="passes over the training data")
    temperature: float = knob(4.0, low=0.05, help="softens both outputs")
    hard: float = knob(0.3, low=0.0, help="weight of the task's own loss")
    soft: float = knob(0.7, low=0.0, help="weight of the teacher's term")
    lr: float = knob(1e-3, low=0.0, help="learning rate")
    optimizer: str = knob("adam", one_of=OPTIMIZERS, help="the optimizer")
    decay: float = knob(0.0, low=0.0, help="weight decay (L2)")
    batch: int | None = knob(None, low=1, help="samples a step, when other than the task's")
    precision: str = knob(
        "auto", one_of=("auto", "float32", "bfloat16"), help="of the products; auto takes what is fast"
    )
    recorded: bool = knob(False, help="on a GPU record a step and replay it, where Python decides the same at each")

    def apply(self, view: View, task: Task) -> None:
        with only_learning(view, None if self.where == "*" else view.weights(self.where)):
            train(view.network, task, Training(
                epochs=self.epochs, lr=self.lr, optimizer=self.optimizer, decay=self.decay, batch=self.batch,
                teachers=teachers_of(self.teacher, view), temperature=self.temperature, hard=self.hard,
                soft=self.soft, precision=self.precision, recorded=self.recorded, seed=task.seed,
                label=self.name(), progress=view.progress,
            ))  # fmt: skip
        view.notes += place_of_training(view.network, task.device)
