"""relational: distances and angles between the samples of a batch."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from cortado.knobs.knob import knob
from cortado.training.objectives.layer_pairs import LayerPairs, mean_of_pairs, pooled
from cortado.training.objectives.objective import Terms, TrainingStep

TINY = 1e-12


@dataclass(frozen=True)
class Relational(LayerPairs):
    """Huber losses of distances between two samples and of angles between three, of one layer each.  Park et al., 2019 (RKD).

    A sample is its mean over places, (N, C); the widths may differ. `at` empty: the outputs. Distances are divided by their
    mean, so that neither scale nor rotation matters. Averaged over ordered pairs and over triples of different samples;
    fewer than two or three samples add 0. Under torchrun, each process compares the samples of its share of the batch.
    The angles of N samples take N^2 x C + N^3 numbers.
    """

    or_outputs: ClassVar[bool] = True

    distances: float = knob(1.0, low=0.0, help="weight of the distances")
    angles: float = knob(2.0, low=0.0, help="weight of the angles")

    def terms(self, step: TrainingStep) -> Terms:
        far, turned = [], []
        for pair in self.both(step):
            mine, wanted = pooled(pair.mine, pair.counted), pooled(pair.wanted, pair.counted_wanted)
            far.append(distance_loss(mine, wanted))
            if self.angles:
                turned.append(angle_loss(mine, wanted))
        terms = {"relational distances": self.distances * mean_of_pairs(far)}
        return {**terms, "relational angles": self.angles * mean_of_pairs(turned)} if turned else terms


def distance_loss(mine: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean Huber loss over pairs of samples (N, C) between distances, each divided by their mean."""
    count = len(mine)
    if count < 2:
        return mine.sum() * 0.0
    found = functional.smooth_l1_loss(relative_distances(mine), relative_distances(wanted), reduction="sum")
    return found / (count * (count - 1))


def relative_distances(samples: Tensor) -> Tensor:
    """Return (N, N): the distances of samples (N, C) divided by their mean over pairs; 0 on the diagonal, without gradient."""
    squares = (samples[:, None] - samples[None]).square().sum(-1)
    found = torch.where(squares > TINY, squares.clamp(min=TINY).sqrt(), 0.0)
    count = len(samples)
    return found / (found.sum() / (count * (count - 1))).clamp(min=TINY)


def angle_loss(mine: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean Huber loss over triples of samples (N, C) between the cosines of the angle at the second of them."""
    count = len(mine)
    if count < 3:
        return mine.sum() * 0.0
    found = functional.smooth_l1_loss(cosines(mine), cosines(wanted), reduction="sum")
    return found / (count * (count - 1) * (count - 2))


def cosines(samples: Tensor) -> Tensor:
    """Return (N, N, N): at [j, i, k], the cosine of the angle at sample j between i and k; 0 unless all three differ."""
    apart = samples[None] - samples[:, None]
    units = apart * apart.square().sum(-1, keepdim=True).clamp(min=TINY).rsqrt()
    found = units @ units.transpose(1, 2)
    same = torch.eye(len(samples), dtype=torch.bool, device=samples.device)
    return found.masked_fill(same[None] | same[:, None] | same[:, :, None], 0.0)
