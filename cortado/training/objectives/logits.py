"""logits: the softened outputs of one teacher or several."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.knobs.knob import knob
from cortado.running.trees import tensors_in
from cortado.task.outputs.outputs import Outputs, same_shapes
from cortado.training.objectives.objective import Objective, Terms, TrainingStep


@dataclass(frozen=True)
class Logits(Objective):
    """T^2 x KL(teachers at T || network at T), over the classes in axis 1.  Hinton, Vinyals, Dean, 2015.

    Several teachers are an ensemble: the mean of their probabilities. Where a task says what its outputs are, or a network
    has several, their divergence takes the place of KL: classes softened, numbers as they are, summed over the outputs.
    """

    recordable: ClassVar[bool] = True
    taught: ClassVar[bool] = True

    temperature: float = knob(4.0, low=0.05, help="softmax temperature T of both outputs")

    def terms(self, step: TrainingStep) -> Terms:
        if not step.teachers:
            raise BadValue("objectives/logits: there is no teacher. Write teacher: original, or package.module:maker.")
        if step.kind is not None:
            return {"logits": self.divergence(step, step.kind)}
        outputs = first_tensor(step.outputs)
        return {"logits": distillation(outputs, self.softened(step, outputs.shape), self.temperature)}

    def divergence(self, step: TrainingStep, kind: Outputs) -> Tensor:
        """Return T^2 x the mean divergence from the teachers' outputs.  Raises BadNetwork for outputs of other shapes."""
        found, each = kind.rows(step.outputs), []
        for teacher in step.teachers:
            wanted = kind.rows(teacher.outputs)
            if not same_shapes(wanted, found):
                raise BadNetwork(
                    f"{step.label}: the teacher's outputs have other shapes than the network's. "
                    "Choose a teacher of the same task."
                )
            each.append(kind.fitted(wanted).divergence(wanted, found, self.temperature).mean())
        return self.temperature**2 * torch.stack(each).mean()

    def softened(self, step: TrainingStep, shape: torch.Size) -> Tensor:
        """Return the mean of the teachers' probabilities.  Raises BadNetwork for outputs of another shape."""
        outputs = [first_tensor(one.outputs) for one in step.teachers]
        for one in outputs:
            if one.shape != shape:
                raise BadNetwork(
                    f"{step.label}: the teacher's outputs have shape {tuple(one.shape)}, the network's {tuple(shape)}. "
                    "Choose a teacher of the same task."
                )
        return torch.stack([functional.softmax(one / self.temperature, 1) for one in outputs]).mean(0)


def first_tensor(outputs: Any) -> Tensor:
    """Return the outputs if they are a tensor, else the first tensor in them."""
    return tensors_in(outputs)[0]


def distillation(outputs: Tensor, soft: Tensor, temperature: float) -> Tensor:
    """Return T^2 x KL(soft || outputs at T), averaged over all axes but 1, the classes.

    `outputs`: logits (N, C, ...); `soft`: probabilities at temperature T, same shape.  Hinton, Vinyals, Dean, 2015.
    """
    # A class with probability 0 adds 0, even if both networks mask it with minus infinity.
    logs = functional.log_softmax(outputs / temperature, 1).masked_fill(soft == 0, 0.0)
    return temperature**2 * functional.kl_div(logs, soft, reduction="none").sum(1).mean()
