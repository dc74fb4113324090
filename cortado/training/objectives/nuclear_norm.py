"""nuclear_norm: the nuclear norm, which shrinks small singular values to zero."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task
from cortado.training.objectives.penalty import Extra, Penalty


@dataclass(frozen=True)
class NuclearNorm(Penalty):
    """The sum of the singular values of every weight as (outputs, inputs x taps), so that filters share directions.

    The convex surrogate of rank (Fazel, 2002), with the goal of Wen et al., 2017: filters that can be factored after
    training. Its gradient is U V from the singular vectors.
    """

    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        matrices = [weight for weight in weights if len(weight.shape) >= 2 and weight.shape.numel()]
        if not matrices:
            raise BadNetwork("objectives/nuclear_norm: no weight has two or more axes. Widen where.")

        def extra() -> Tensor:
            return torch.stack([nuclear_norm(getattr(one.layer, one.name)) for one in matrices]).sum()

        return extra


def nuclear_norm(weight: Tensor) -> Tensor:
    """Return the sum of singular values of (axis 0, all others); its gradient stays finite for equal ones."""
    rows = weight.flatten(1).float()
    return (rows * orthogonal(rows.detach())).sum()


def orthogonal(rows: Tensor) -> Tensor:
    """Return U V of the singular value decomposition U S V, over the directions with nonzero singular values."""
    if rows.shape[0] > rows.shape[1]:
        return orthogonal(rows.T).T
    squares, vectors = torch.linalg.eigh((rows @ rows.T).double())
    sure = squares > 1e-10 * squares[-1].clamp(min=1e-30)
    shrink = torch.where(sure, squares.clamp(min=1e-30).rsqrt(), 0.0)
    return ((vectors * shrink) @ vectors.T).to(rows) @ rows
