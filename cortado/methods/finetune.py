"""finetune: train what the forms leave trainable (remaining weights, shared values, scales, biases)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from cortado.methods.method import Method, knob
from cortado.network.view import View
from cortado.running.devices import place_of_training
from cortado.task.task import Task
from cortado.training.learning import only_learning
from cortado.training.loop import OPTIMIZERS, SCHEDULES, Training, train
from cortado.training.objectives.penalty import Extra, penalty


@dataclass(frozen=True)
class Finetune(Method):
    """Train on (1 - `teacher`) x the task's loss + `teacher` x T^2 x KL(original network at T || network at T), T = 4.

    Masks, codes and codebook assignments stay fixed; only floats learn. From Python, cortado.training.loop.train accepts
    any optimizer, schedule, penalty and teachers. `penalty` prepares weights for pruning or factorization afterwards.
    """

    trains = True

    epochs: float = knob(1.0, low=0.0, help="passes over the training data")
    lr: float = knob(1e-3, low=0.0, help="learning rate")
    optimizer: str | Callable[..., Any] = knob(
        "adam", one_of=OPTIMIZERS, help="a name, or a function from parameter groups to an Optimizer"
    )
    schedule: str | Callable[..., Any] = knob(
        "cosine", one_of=SCHEDULES, help="a name, or a function from training progress (0..1) to a factor of lr"
    )
    momentum: float = knob(0.9, low=0.0, high=1.0, help="momentum of sgd")
    decay: float = knob(0.0, low=0.0, help="weight decay (L2)")
    batch: int | None = knob(None, low=1, help="batch size; the task's if none is given")
    teacher: float = knob(
        0.0,
        low=0.0,
        high=1.0,
        help="share of the distillation loss from the original network, at temperature 4; the task's own loss has the rest",
    )
    average: float = knob(0.0, low=0.0, high=1.0, help="last share of the training over which weights are averaged")
    warmup: float = knob(0.0, low=0.0, high=1.0, help="share of the training over which lr rises from 0")
    clip: float | None = knob(
        None, low=0.0, help="largest gradient norm; if none is given, 5 for sgd with kept statistics"
    )
    precision: str = knob(
        "auto", one_of=("auto", "float32", "bfloat16"), help="of matrix products; auto picks the fast one"
    )
    statistics: str = knob(
        "moving", one_of=("moving", "kept"), help="of batch norms: updated, or kept for short recoveries"
    )
    recorded: bool = knob(False, help="record the training step as a CUDA graph; Python must not branch on data")
    penalty: str = knob(
        "",
        help="added to the loss: nuclear_norm, norm_gains, group_lasso, group_lasso_positions, bipolar or package.module:Class",
    )
    strength: float = knob(1e-4, low=0.0, help="weight of the penalty")
    growing: bool = knob(False, help="increase the strength from 0 during training")

    def apply(self, view: View, task: Task) -> None:
        extra, count = self.penalised(view, task)
        with only_learning(view, None if self.where == "*" else view.weights(self.where)):
            train(view.network, task, Training(
                epochs=self.epochs, lr=self.lr, optimizer=self.optimizer, schedule=self.schedule, momentum=self.momentum,
                decay=self.decay, batch=self.batch, average=self.average, warmup=self.warmup, clip=self.clip,
                precision=self.precision, statistics=self.statistics, recorded=self.recorded,
                teachers=(view.original,) if self.teacher else (), temperature=4.0, hard=1.0 - self.teacher, soft=self.teacher,
                seed=task.seed, label=self.name(),
                progress=view.progress, penalty=extra, after_batch=count,
            ))  # fmt: skip
        view.notes += place_of_training(view.network, task.device)

    def penalised(self, view: View, task: Task) -> tuple[Extra | None, Callable[[nn.Module, int], None] | None]:
        """Return the weighted penalty and, if its strength grows, the callback to run at every step."""
        if not self.penalty:
            return None, None
        original = penalty(self.penalty).of(view, view.weights(self.where), task)
        if not self.growing:
            return lambda network: self.strength * original(network), None
        done, total = [0.0], max(1.0, self.epochs * len(task.train) / (self.batch or task.batch))

        def count(network: nn.Module, step: int) -> None:
            done[0] = min(1.0, step / total)

        return lambda network: self.strength * done[0] * original(network), count
