"""dist: correlations between the network's and the teacher's probabilities, over classes and over samples."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cortado.knobs.knob import knob
from cortado.training.objectives.objective import Objective, Terms, TrainingStep
from cortado.training.objectives.rows import logit_rows

TINY = 1e-8


@dataclass(frozen=True)
class Dist(Objective):
    """T^2 x (inter (1 - correlation of each row) + intra (1 - correlation of each class)).  Huang et al., 2022 (DIST).

    A row is a sample, pixel or token; a class is a column of the batch. Correlations are Pearson's, averaged over rows and
    over classes; void does not count. Several teachers: the mean of their probabilities. Under torchrun, the correlations of
    classes are those of each process's share of the batch.
    """

    recordable: ClassVar[bool] = True
    taught: ClassVar[bool] = True

    inter: float = knob(1.0, low=0.0, help="weight of the correlations over classes")
    intra: float = knob(1.0, low=0.0, help="weight of the correlations over samples")
    temperature: float = knob(1.0, low=0.05, help="softmax temperature T of both outputs")

    def terms(self, step: TrainingStep) -> Terms:
        rows = logit_rows(step, self.name())
        mine, wanted = (rows.mine / self.temperature).softmax(1), rows.softened(self.temperature)
        weights = mine.new_ones(len(mine)) if rows.counted is None else rows.counted.to(mine.dtype)
        over_classes = 1 - correlations(mine, wanted, torch.ones_like(mine))
        inter = (over_classes * weights).sum() / weights.sum().clamp(min=1)
        intra = 1 - correlations(mine.T, wanted.T, weights.expand_as(mine.T)).mean()
        scale = self.temperature**2
        # One sample has no correlation over samples.
        some = (weights.sum() > 1).to(mine.dtype)
        return {"dist inter": scale * self.inter * inter, "dist intra": scale * self.intra * some * intra}


def correlations(mine: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Return Pearson's correlation of each row, (P,), of two (P, C), with a weight for each entry."""
    total = weights.sum(1, keepdim=True).clamp(min=1)
    centred = [one - (one * weights).sum(1, keepdim=True) / total for one in (mine, wanted)]
    products = [(one * two * weights).sum(1) for one, two in ((centred[0], centred[1]), (centred[0], centred[0]))]
    square = (centred[1].square() * weights).sum(1)
    return products[0] / (products[1].clamp(min=TINY**2).sqrt() * square.clamp(min=TINY**2).sqrt())
