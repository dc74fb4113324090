"""prune/positions: drop the same input channel and kernel position from all filters of a convolution."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cortado.errors import BadValue, NothingChanged
from cortado.forms.low_rank import LowRank
from cortado.method import Method, knob
from cortado.methods.prune.weights import drop, highest, still_there
from cortado.network.view import View, Weight
from cortado.scores.score import score
from cortado.task import Task

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class PrunePositions(Method):
    """Group-wise brain damage: a convolution as a matrix product loses whole columns.  Lebedev, Lempitsky, 2016.

    A column of the patch matrix (im2col) belongs to one input channel and one kernel position. When every filter has
    a zero there the column need not be gathered, and what remains is one dense product, shorter by as much:
    `cortado.lowering.positions.gathered` runs it so. In a convolution with groups a column is one of its group.
    A column is worth the sum of its weights' scores: `magnitude` is the group's L1 norm, `magnitude_l2` its L2 norm,
    `curvature` the group form of Optimal Brain Damage. Columns that were dropped before stay dropped and count.
    """

    lossy = True

    keep: float = knob(0.5, low=0.0, high=1.0, says="share of columns kept")
    by: str = knob("magnitude", says="score whose sum over a column ranks it")
    across: bool = knob(False, says="rank across layers, so that some give more than others")

    def apply(self, view: View, task: Task) -> None:
        weights = [weight for weight in view.weights(self.where) if is_kernel(weight)]
        if not weights:
            raise NothingChanged(
                f"{self.name()}: {type(view.network).__name__} has no convolution in one piece where {self.where}. "
                "Positions are those of kernels: use prune/channels or prune/weights for other layers and factors."
            )
        before = [still_there(weight).to(weight.dense().device) for weight in weights]
        alive = [columns(mask.float(), weight) > 0 for mask, weight in zip(before, weights, strict=True)]
        worths = [columns(s, weight) for s, weight in zip(score(self.by).of(weights, view, task), weights, strict=True)]
        ranked = [torch.where(a, w.to(a.device), -1.0) for w, a in zip(worths, alive, strict=True)]
        for weight, mask, kept in zip(weights, before, self.kept(ranked, alive), strict=True):
            if not bool(kept.any()):
                raise BadValue(
                    f"{self.name()}: nothing of {weight.path} would be left. Raise keep, or leave it out with where."
                )
            drop(weight, mask & filters(kept, weight))

    def kept(self, ranked: list[Tensor], alive: list[Tensor]) -> list[Tensor]:
        """For each layer which columns stay."""
        if not self.across:
            return [highest(r, round(self.keep * r.numel())) & a for r, a in zip(ranked, alive, strict=True)]
        together = torch.cat([r.flatten() for r in ranked])
        pieces = highest(together, round(self.keep * together.numel())).split([r.numel() for r in ranked])
        return [piece.view(a.shape) & a for piece, a in zip(pieces, alive, strict=True)]


def is_kernel(weight: Weight) -> bool:
    """Whether a weight is the kernel of a convolution, in one piece, and not of a transposed one."""
    named = isinstance(weight.layer, CONVOLUTIONS) and weight.name == "weight" and weight.shape.numel() > 0
    return named and not isinstance(weight.form, LowRank)


def columns(values: Tensor, weight: Weight) -> Tensor:
    """Values of a kernel (N, C / groups, ...) summed over the filters of each group: (groups, C / groups, ...)."""
    groups: int = weight.layer.groups  # type: ignore[assignment]
    return values.float().unflatten(0, (groups, -1)).sum(1)


def filters(kept: Tensor, weight: Weight) -> Tensor:
    """A mask of columns (groups, C / groups, ...) for all filters, in the shape of the kernel."""
    return kept.repeat_interleave(weight.shape[0] // len(kept), 0)
