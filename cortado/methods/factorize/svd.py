"""factorize/svd: the truncated singular value decomposition of each weight."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cortado.methods.factorize.factorize import Chosen, Factorize, chosen_ranks, factorize
from cortado.methods.factorize.ranks import Cut, squares
from cortado.methods.factorize.scheme import Scheme
from cortado.methods.factorize.targets import LAYERS, chain, sketch
from cortado.network.view import View
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task


@dataclass(frozen=True)
class FactorizeSvd(Factorize):
    """A linear layer becomes two, a convolution fewer filters and a 1 x 1 one.  Denton et al., 2014.

    The weight as (outputs, inputs x taps) keeps its largest singular values, the closest matrix of this rank.
    """

    needs = (LAYERS,)

    def apply(self, view: View, task: Task) -> None:
        cuts = [WHOLE.cut(target) for target in LAYERS.require(self, view, task)]
        factorize(self, view, cuts, chosen_ranks(self, cuts), truncated)


def truncated(chosen: Chosen) -> Iterator[LowRank]:
    """Yield each weight with its largest singular values."""
    for cut, rank in chosen:
        weight = cut.target.weight.dense()
        first, last = by_singular_values(weight, rank)
        yield two_kernels(first, last, weight)


def whole_then_point(shape: torch.Size, rank: int) -> LowRank:
    """Return the shapes of `rank` whole filters and a 1 x 1 kernel."""
    return sketch((rank, *shape[1:]), (shape[0], rank, *[1] * (len(shape) - 2)))


def by_singular_values(weight: Tensor, rank: int) -> list[Tensor]:
    """Return (rank, inputs x taps) and (outputs, rank), the closest weight of this rank; both share the singular values."""
    u, s, v = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
    root = s[:rank].sqrt()
    return [(root[:, None] * v[:rank]).to(weight), (u[:, :rank] * root).to(weight)]


def closest_outputs(wanted: Tensor, metric: Tensor, rows: Tensor, rank: int) -> list[Tensor]:
    """Return the two matrices with the closest outputs: the principal axes of rows x wanted x input."""
    scaled = wanted.double() * rows.double()[:, None]
    axes = torch.linalg.eigh(scaled @ metric.double() @ scaled.T)[1].flip(1)[:, :rank]
    return [(axes.T @ scaled).to(wanted), (axes / rows.double()[:, None]).to(wanted)]


def two_kernels(first: Tensor, last: Tensor, weight: Tensor) -> LowRank:
    """Return (rank, inputs x taps) and (outputs, rank) as factors of `weight`, in its dtype."""
    point = last.to(weight).reshape(*last.shape, *[1] * (weight.dim() - 2))
    return chain([first.to(weight).reshape(len(first), *weight.shape[1:]), point])


WHOLE = Scheme(
    suits=lambda target: True,
    cut=lambda target: Cut(target, squares(target.flat), partial(whole_then_point, target.shape)),
    start=lambda weight, cut, rank, generator: by_singular_values(weight, rank),
    build=lambda factors: factors[1] @ factors[0],
    form=lambda factors, weight: two_kernels(factors[0], factors[1], weight),
    closest=closest_outputs,
)
"""Whole filters, fewer of them, and a 1 x 1 kernel."""
