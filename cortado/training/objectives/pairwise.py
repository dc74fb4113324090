"""pairwise: how similar the places of a map are to each other."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadNetwork
from cortado.knobs.knob import knob
from cortado.training.objectives.layer_pairs import LayerPair, LayerPairs, mean_of_pairs
from cortado.training.objectives.objective import Terms, TrainingStep

TINY = 1e-12


@dataclass(frozen=True)
class Pairwise(LayerPairs):
    """The squared difference of the cosines between any two cells of a map.  Liu et al., 2019, 2020.

    Of maps (N, C, H, W): both are averaged over a grid of at most `cells` x `cells` cells first. No rotation of channels
    matters, so widths may differ and no map is learned; sizes may differ too. Averaged over pairs of cells, samples and pairs of
    layers. Void pixels have no share in a cell, and cells of nothing else do not count.
    """

    cells: int = knob(12, low=2, help="most cells of the grid along each side")

    def terms(self, step: TrainingStep) -> Terms:
        found = []
        for pair in self.both(step):
            mine, wanted, counted = grids(pair, self.cells, step.label, self.name())
            found.append(affinity_loss(mine, wanted, counted))
        return {"pairwise": mean_of_pairs(found)}


def grids(pair: LayerPair, most: int, label: str, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return at most `most` x `most` cells of both layers' maps, (N, cells, C), and which count, (N, cells).

    A cell is the mean of its places that count. Raises BadNetwork for other layers than maps; `name` is the objective's.
    """
    if pair.mine.dim() != 4 or pair.wanted.dim() != 4:
        raise BadNetwork(
            f"{label}: {name} compares maps (N, C, H, W), and {pair.at} gives shape {tuple(pair.mine.shape)}, "
            f"the teacher's {pair.of} {tuple(pair.wanted.shape)}. Choose layers before the pooling, or relational."
        )
    sizes = zip(pair.mine.shape[2:], pair.wanted.shape[2:], strict=True)
    rows, columns = (min(most, mine, wanted) for mine, wanted in sizes)
    made = []
    for one, counted in ((pair.mine, pair.counted), (pair.wanted, pair.counted_wanted)):
        share = torch.ones_like(one[:, :1]) if counted is None else counted.reshape(one[:, :1].shape).to(one.dtype)
        weights = functional.adaptive_avg_pool2d(share, (rows, columns))
        cells = functional.adaptive_avg_pool2d(one * share, (rows, columns)) / weights.clamp(min=TINY)
        made.append((cells.flatten(2).transpose(1, 2), weights.flatten(1) > 0))
    return made[0][0], made[1][0], made[0][1] & made[1][1]


def affinities(cells: Tensor, others: Tensor) -> Tensor:
    """Return (N, cells, others): the cosine between each of the cells (N, cells, C) and each of the others (N, others, C)."""
    return torch.matmul(units(cells), units(others).transpose(1, 2))


def units(cells: Tensor) -> Tensor:
    """Return cells (N, cells, C) with L2 norm 1."""
    return cells * cells.square().sum(-1, keepdim=True).clamp(min=TINY).rsqrt()


def affinity_loss(mine: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """Return the mean squared difference of cosines over pairs of cells that count.

    `mine`: (N, cells, C), `wanted`: (N, cells, D), `counted`: (N, cells).
    """
    return mean_over_pairs(affinities(mine, mine) - affinities(wanted, wanted), counted, counted)


def mean_over_pairs(apart: Tensor, counted: Tensor, counted_others: Tensor) -> Tensor:
    """Return the mean square of (N, cells, others) where both count: `counted` is (N, cells), `counted_others` (N, others)."""
    pairs = (counted[:, :, None] & counted_others[:, None]).to(apart.dtype)
    return (apart.square() * pairs).sum() / pairs.sum().clamp(min=1)
