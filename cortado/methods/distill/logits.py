"""distill/logits: train on the softened outputs of one teacher or several."""

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

    `teacher` is "original" (the network as given), "package.module:maker", a network, or a tuple of those, whose mean
    probabilities teach (an ensemble).
    """

    trains = True

    teacher: Any = knob("original", help="original, package.module:maker, a network, or a tuple of them")
    epochs: float = knob(1.0, low=0.0, help="passes over the training data")
    temperature: float = knob(4.0, low=0.05, help="softmax temperature of both outputs")
    hard: float = knob(0.3, low=0.0, help="weight of the task's own loss")
    soft: float = knob(0.7, low=0.0, help="weight of the distillation loss")
    lr: float = knob(1e-3, low=0.0, help="learning rate")
    optimizer: str = knob("adam", one_of=OPTIMIZERS, help="the optimizer")
    decay: float = knob(0.0, low=0.0, help="weight decay (L2)")
    batch: int | None = knob(None, low=1, help="batch size; the task's if none is given")
    precision: str = knob(
        "auto", one_of=("auto", "float32", "bfloat16"), help="of matrix products; auto picks the fast one"
    )
    recorded: bool = knob(False, help="record the training step as a CUDA graph; Python must not branch on data")

    def apply(self, view: View, task: Task) -> None:
        with only_learning(view, None if self.where == "*" else view.weights(self.where)):
            train(view.network, task, Training(
                epochs=self.epochs, lr=self.lr, optimizer=self.optimizer, decay=self.decay, batch=self.batch,
                teachers=teachers_of(self.teacher, view), temperature=self.temperature, hard=self.hard,
                soft=self.soft, precision=self.precision, recorded=self.recorded, seed=task.seed,
                label=self.name(), progress=view.progress,
            ))  # fmt: skip
        view.notes += place_of_training(view.network, task.device)
