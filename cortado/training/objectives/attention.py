"""attention: where the teacher's layers are active."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.knobs.knob import knob
from cortado.training.objectives.layer_pairs import LayerPairs, as_places, check_places, mean_of_pairs, same_places
from cortado.training.objectives.objective import Terms, TrainingStep

TINY = 1e-12


@dataclass(frozen=True)
class Attention(LayerPairs):
    """The squared distance between normalised attention maps, sums over channels of |activation|^p.  Zagoruyko, Komodakis, 2017.

    Of maps (N, C, H, W) and tokens (N, T, C); the widths may differ. Summed over places, averaged over samples and pairs of
    layers, so it is within 0..2; the paper's weight is 500 divided by the number of places. Void pixels and padding are left out.
    """

    power: float = knob(2.0, low=1.0, help="exponent p")

    def terms(self, step: TrainingStep) -> Terms:
        found = []
        for pair in self.both(step):
            check_places(step.label, pair, self.name())
            same_places(step.label, pair)
            mine, wanted = (attention_map(one, self.power, pair.counted) for one in (pair.mine, pair.wanted))
            found.append((mine - wanted).square().sum(1).mean())
        return {"attention": mean_of_pairs(found)}


def attention_map(values: Tensor, power: float, counted: Tensor | None) -> Tensor:
    """Return (N, places): the sum over channels of |values|^power, of L2 norm 1; 0 where a place does not count."""
    found = as_places(values).abs().pow(power).sum(-1)
    if counted is not None:
        found = torch.where(counted, found, 0.0)
    return found / found.square().sum(1, keepdim=True).clamp(min=TINY).sqrt()
