"""logits: the softened outputs of one teacher or several."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.knobs.knob import knob
from cortado.running.trees import map_tensors, tensors_in
from cortado.task.outputs.outputs import Outputs, Rows, same_shapes
from cortado.training.objectives.counted import counted_outputs, mean_over
from cortado.training.objectives.objective import Objective, Terms, TrainingStep
from cortado.training.objectives.rows import logit_rows, other_outputs

FORWARD, REVERSE, JENSEN = "forward", "reverse", "jensen"
TINY = 1e-30
"""The least probability that a teacher gives to a class, for logarithms."""


@dataclass(frozen=True)
class Logits(Objective):
    """T^2 x KL(teachers at T || network at T), over the classes in axis 1.  Hinton, Vinyals, Dean, 2015.

    Summed over classes, averaged over samples and places. On maps it is pixel-wise distillation (Liu et al., 2019). Void
    pixels and padding do not count. `direction: reverse` is KL(network || teachers) (Gu et al., 2024), `jensen` the
    Jensen-Shannon divergence (Agarwal et al., 2024). `standardised` first turns each row of logits into one of mean 0 and
    deviation 1 (Sun et al., 2024), so that the network need not match the scale of the teacher's. `falling: 0.75` lets the
    term fall linearly to a quarter (Romero et al., 2015): the teacher guides first, and the labels decide in the end.

    Several teachers are an ensemble: the mean of their probabilities. Where a task says what its outputs are, or a network
    has several, their divergence takes the place of KL: classes softened, numbers as they are, summed over the outputs; of
    several outputs, every place counts.
    """

    recordable: ClassVar[bool] = True
    taught: ClassVar[bool] = True

    temperature: float = knob(4.0, low=0.05, help="softmax temperature T of both outputs")
    direction: str = knob(FORWARD, one_of=(FORWARD, REVERSE, JENSEN), help="which divergence of the two softmaxes")
    standardised: bool = knob(False, help="standardise each row of logits before its softmax")
    falling: float = knob(0.0, low=0.0, high=1.0, help="share of the weight that is lost by the end of the training")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.falling:
            # A replayed step has the weight of the step that was recorded.
            object.__setattr__(self, "recordable", False)

    def terms(self, step: TrainingStep) -> Terms:
        apart = self.apart(step)
        return {"logits": apart * (1 - self.falling * step.progress) if self.falling else apart}

    def apart(self, step: TrainingStep) -> Tensor:
        """Return T^2 x the mean divergence from the teachers.  Raises BadValue without one."""
        if not step.teachers:
            raise BadValue("objectives/logits: there is no teacher. Write teacher: original, or package.module:maker.")
        if step.kind is not None:
            usual = self.direction == FORWARD and not self.standardised
            return self.divergence(step, step.kind) if usual else self.between_rows(step)
        outputs = self.prepared(first_tensor(step.outputs))
        soft = self.softened(step, outputs.shape)
        places = tuple(size for axis, size in enumerate(outputs.shape) if axis != 1)
        counted = counted_outputs(step, outputs.shape[1], places)
        return distillation(outputs, soft, self.temperature, self.direction, counted)

    def divergence(self, step: TrainingStep, kind: Outputs) -> Tensor:
        """Return the mean distance from the teachers' outputs, times T^2 where they are softened.

        Raises BadNetwork for outputs of other shapes.
        """
        found, each = kind.rows(step.outputs), []
        for teacher in step.teachers:
            wanted = kind.rows(teacher.outputs)
            if not same_shapes(wanted, found):
                raise other_outputs(step.label)
            filled, share = without_uncounted(step, kind, wanted, found)
            each.append(kind.fitted(wanted).distilled(wanted, filled, self.temperature).mean() / share)
        return torch.stack(each).mean()

    def between_rows(self, step: TrainingStep) -> Tensor:
        """Return the divergence in another direction, or of standardised logits, where the task says what its outputs are."""
        rows = logit_rows(step, "logits")
        wanted = torch.stack([functional.softmax(self.prepared(one) / self.temperature, 1) for one in rows.wanted])
        return distillation(self.prepared(rows.mine), wanted.mean(0), self.temperature, self.direction, rows.counted)

    def softened(self, step: TrainingStep, shape: torch.Size) -> Tensor:
        """Return the mean of the teachers' probabilities.  Raises BadNetwork for outputs of another shape."""
        outputs = [first_tensor(one.outputs) for one in step.teachers]
        for one in outputs:
            if one.shape != shape:
                raise BadNetwork(
                    f"{step.label}: the teacher's outputs have shape {tuple(one.shape)}, the network's {tuple(shape)}. "
                    "Choose a teacher of the same task."
                )
        return torch.stack([functional.softmax(self.prepared(one) / self.temperature, 1) for one in outputs]).mean(0)

    def prepared(self, logits: Tensor) -> Tensor:
        """Return logits (N, C, ...), standardised if that is asked for."""
        return standard_scores(logits) if self.standardised else logits


def first_tensor(outputs: Any) -> Tensor:
    """Return the outputs if they are a tensor, else the first tensor in them."""
    return tensors_in(outputs)[0]


def without_uncounted(step: TrainingStep, kind: Outputs, wanted: Rows, found: Rows) -> tuple[Rows, Tensor | float]:
    """Return rows with those wanted where nothing counts, so that they add 0, and the share of rows that count."""
    if not isinstance(found, Tensor):
        return found, 1.0
    shape = tuple(found.shape[:2])
    labels = step.targets
    if isinstance(labels, Tensor) and labels.numel() == shape[0] * shape[1]:
        shape = tuple(labels.shape)
    counted = counted_outputs(step, found.shape[-1], shape)
    if counted is None:
        return found, 1.0
    counted = counted.reshape(found.shape[:2])
    filled = map_tensors(lambda part: torch.where(counted[..., None], part, wanted), found)
    return filled, counted.float().mean().clamp(min=1 / counted.numel())


def standard_scores(logits: Tensor) -> Tensor:
    """Return logits (N, C, ...) with mean 0 and deviation 1 over the classes, axis 1.  Sun et al., 2024."""
    centred = logits - logits.mean(1, keepdim=True)
    return centred * (centred.square().mean(1, keepdim=True) + 1e-12).rsqrt()


def distillation(
    outputs: Tensor, soft: Tensor, temperature: float, direction: str = FORWARD, counted: Tensor | None = None
) -> Tensor:
    """Return T^2 x the divergence of outputs at T from `soft`, averaged over all axes but 1, the classes.

    `outputs`: logits (N, C, ...); `soft`: probabilities at temperature T, same shape; `counted`: (N, ...), which places
    count, None for all. "forward" is KL(soft || outputs), "reverse" KL(outputs || soft), "jensen" the mean of their KL from
    their mean.  Hinton, Vinyals, Dean, 2015.
    """
    logs = functional.log_softmax(outputs / temperature, 1)
    if direction == FORWARD:
        # A class with probability 0 adds 0, even if both networks mask it with minus infinity.
        each = functional.kl_div(logs.masked_fill(soft == 0, 0.0), soft, reduction="none")
    else:
        mine = logs.exp()
        logs, wanted = logs.masked_fill(mine == 0, 0.0), soft.clamp(min=TINY).log()
        if direction == REVERSE:
            each = mine * (logs - wanted)
        else:
            middle = ((mine + soft) / 2).clamp(min=TINY).log()
            each = (mine * (logs - middle) + soft * (wanted - middle)) / 2
    return temperature**2 * mean_over(each.sum(1), counted)
