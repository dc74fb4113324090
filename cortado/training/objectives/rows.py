"""Rows: the logits of a network and of its teachers as rows, one for each place, with labels and what counts."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.running.trees import tensors_in
from cortado.task.outputs.outputs import Outputs
from cortado.training.objectives.counted import counted_outputs
from cortado.training.objectives.objective import TrainingStep


@dataclass(frozen=True)
class LogitRows:
    """Logits (P, C) of the network, those of each teacher, labels (P,) and which rows count (P,), or None.

    A row is a sample, pixel or token.
    """

    mine: Tensor
    wanted: tuple[Tensor, ...]
    labels: Tensor | None
    counted: Tensor | None

    def softened(self, temperature: float) -> Tensor:
        """Return (P, C): the mean of the teachers' probabilities at a temperature."""
        return torch.stack([functional.softmax(one / temperature, 1) for one in self.wanted]).mean(0)


def logit_rows(step: TrainingStep, name: str) -> LogitRows:
    """Return the rows of a step: the classes are in axis 1, or where the kind of outputs says.

    Raises BadValue without a teacher and for outputs that are no logits, BadNetwork where shapes differ. `name` is the
    objective's.
    """
    if not step.teachers:
        raise BadValue(f"objectives/{name}: there is no teacher. Write teacher: original, or package.module:maker.")
    mine, places = rows_and_places(step.outputs, step.kind, name)
    wanted = tuple(rows_and_places(one.outputs, step.kind, name)[0] for one in step.teachers)
    for one in wanted:
        if one.shape != mine.shape:
            raise other_outputs(step.label)
    labels, count = step.targets, mine.shape[1]
    known = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.numel() == len(mine)
    # Labels of any shape with as many places in the same order are those of the rows.
    shape = tuple(labels.shape) if known else places
    counted = counted_outputs(step, count, shape)
    return LogitRows(
        mine, wanted, labels.reshape(-1) if known else None, None if counted is None else counted.reshape(-1)
    )


def rows_and_places(outputs: Any, kind: Outputs | None, name: str) -> tuple[Tensor, tuple[int, ...]]:
    """Return logits as rows (P, C), and the shape of their places.  Raises BadValue for outputs that are no logits."""
    if kind is None:
        logits = tensors_in(outputs)[0]
        found = logits.movedim(1, -1) if logits.dim() > 1 else logits[:, None]
    else:
        found = kind.rows(outputs)
        if not kind.softens or not isinstance(found, Tensor):
            raise BadValue(
                f"objectives/{name}: it compares logits of classes, and the task's outputs are {kind}. "
                "Use logits or features, or Task(outputs=Classes())."
            )
    return found.reshape(-1, found.shape[-1]), tuple(found.shape[:-1])


def other_outputs(label: str) -> BadNetwork:
    """Return the error for a teacher of another task.  `label` starts its message."""
    return BadNetwork(
        f"{label}: the teacher's outputs have other shapes than the network's. Choose a teacher of the same task."
    )
