"""distill/made_up: train on a teacher's answers to inputs that are made up around the training inputs."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.knobs.nested import flat_knobs
from cortado.methods.learn import SEVERAL, learn
from cortado.methods.method import Method, knob
from cortado.methods.needs import LEARNS, Leaves
from cortado.network.view import View
from cortado.running.trees import concatenated, map_tensors, pick, tensors_in
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.munge import munge, nearest
from cortado.training.objectives.logits import Logits
from cortado.training.teachers import check_teacher
from cortado.training.training import Training

READ_BATCH = 256


@flat_knobs
@dataclass(frozen=True)
class DistillMadeUp(Method):
    """loss = T^2 x KL(teacher at T || network at T), on the training inputs and made-up ones (MUNGE), without any label.

    Model compression: Bucila, Caruana, Niculescu-Mizil, 2006. For few training data: a large teacher, or several, label as
    many samples as a small network needs. An epoch is a pass over the training inputs and all their copies, which are drawn
    again in every epoch. The training inputs have to fit into memory, prepared and not augmented.
    """

    trains = True
    needs = (LEARNS,)
    leaves = (Leaves.FLOATS,)
    training: Training = knob(Training(), help="how to train")
    teacher: Any = knob("original", help=SEVERAL, check=check_teacher)
    temperature: float = knob(1.0, low=0.05, help="softmax temperature of both outputs")
    copies: int = knob(40, low=0, help="made-up samples for each training input")
    swap: float = knob(0.5, low=0.0, high=1.0, help="share of a sample's values that come from its nearest neighbour")
    spread: float = knob(
        1.0,
        low=1e-6,
        help="s: such values are drawn with a deviation of the distance over s; large: the neighbour's own",
    )

    def apply(self, view: View, task: Task) -> None:
        made = made_up(task.train, self.copies, self.swap, self.spread, task.generator(17))
        learned = (Logits(1.0, self.temperature),)
        learn(view, replace(task, train=made), self.training, learned, self.teacher, self.where, self.name())
        view.notes.append(f"{len(made) - len(task.train):,} inputs made up from {len(task.train):,}")


def made_up(data: Data, copies: int, swap: float, spread: float, generator: torch.Generator) -> Data:
    """Return Data of (copies + 1) x N samples: the N inputs as they are, then made-up ones, drawn when they are read.

    The targets are those of the inputs that samples were made from. Raises BadTask for inputs that are lists.
    """
    inputs, targets = prepared_inputs(data)
    near = nearest(tensors_in(inputs), generator) if copies else torch.arange(len(data))
    numbers = torch.arange(len(data) * (copies + 1))
    vary = partial(varied, source=inputs, near=near, targets=targets, swap=swap, spread=spread)
    return Data(numbers, numbers, partial(sources_of, source=inputs, count=len(data)), vary=vary)


def prepared_inputs(data: Data) -> tuple[Any, Any]:
    """Return all prepared inputs, and the targets."""
    batches = list(data.original().batches(READ_BATCH))
    inputs, targets = (concatenated([batch[side] for batch in batches]) for side in (0, 1))
    if not all(isinstance(one, Tensor) for one in tensors_in(inputs)) or isinstance(inputs, list):
        raise BadTask("distill/made_up: inputs must be tensors, got a list. Use distill/logits.")
    return inputs, targets


def sources_of(numbers: Tensor, source: Any, count: int) -> Any:
    """Return the training inputs that these samples are made from."""
    return pick(source, numbers % count)


def varied(
    inputs: Any, numbers: Tensor, generator: torch.Generator,
    *, source: Any, near: Tensor, targets: Any, swap: float, spread: float,
) -> tuple[Any, Any]:  # fmt: skip
    """Return inputs of which those after the first N are made up, and their targets."""
    count = len(near)
    others = iter(tensors_in(pick(source, near[numbers % count])))
    made_here = numbers >= count

    def made(values: Tensor) -> Tensor:
        drawn = munge(values, next(others), swap, spread, generator)
        return torch.where(made_here.view(-1, *[1] * (values.dim() - 1)), drawn, values)

    return map_tensors(made, inputs), pick(targets, numbers % count)
