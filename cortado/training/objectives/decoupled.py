"""decoupled: the target's share of KL and that of the other classes, each with a weight."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.knobs.knob import knob
from cortado.training.objectives.counted import mean_over
from cortado.training.objectives.objective import Objective, Terms, TrainingStep
from cortado.training.objectives.rows import logit_rows

TINY = 1e-30


@dataclass(frozen=True)
class Decoupled(Objective):
    """T^2 x (alpha TCKD + beta NCKD): KL over target and rest, and KL over the other classes.  Zhao et al., 2022 (DKD).

    Averaged over samples, pixels and tokens that have a label; void does not count. KL is TCKD plus NCKD times the teacher's
    probability of the rest, so `logits` is the case alpha 1 and beta that probability. Several teachers: the mean of their
    probabilities.
    """

    recordable: ClassVar[bool] = True
    taught: ClassVar[bool] = True
    labelled: ClassVar[bool] = True

    alpha: float = knob(1.0, low=0.0, help="weight of the target's share")
    beta: float = knob(8.0, low=0.0, help="weight of the other classes' share")
    temperature: float = knob(4.0, low=0.05, help="softmax temperature T of both outputs")

    def terms(self, step: TrainingStep) -> Terms:
        rows = logit_rows(step, self.name())
        if rows.labels is None:
            raise BadTask(
                "objectives/decoupled: it needs a class for each row of the outputs, and the targets are others. "
                "Use logits, which needs no labels."
            )
        wanted = rows.softened(self.temperature).clamp(min=TINY).log()
        labels = rows.labels if rows.counted is None else torch.where(rows.counted, rows.labels, 0)
        target, rest = decoupled_parts(rows.mine / self.temperature, wanted, labels)
        scale = self.temperature**2
        return {
            "decoupled target": scale * self.alpha * mean_over(target, rows.counted),
            "decoupled rest": scale * self.beta * mean_over(rest, rows.counted),
        }


def decoupled_parts(mine: Tensor, wanted: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return TCKD and NCKD, each (P,), of logits (P, C) and labels (P,): KL from `wanted` of target against rest, and of the
    softmax over the others.

    Their sum, NCKD times the probability that `wanted` gives to the rest, is KL.  Zhao et al., 2022.
    """
    target = torch.zeros_like(mine, dtype=torch.bool).scatter_(1, labels[:, None], True)
    split = []
    for one in (wanted, mine):
        logs = one.log_softmax(1)
        others = logs.masked_fill(target, -torch.inf)
        both = torch.stack([logs.gather(1, labels[:, None])[:, 0], others.logsumexp(1)], 1)
        split.append((both, others.log_softmax(1).masked_fill(target, 0.0)))
    (both, others), (own_both, own_others) = split
    rest = others.exp().masked_fill(target, 0.0)
    return (both.exp() * (both - own_both)).sum(1), (rest * (others - own_others)).sum(1)
