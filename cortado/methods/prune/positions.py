"""prune/positions: prune the same input channel and kernel position in all filters of a convolution."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cortado.errors import BadValue
from cortado.importance.importance import Importance, score
from cortado.layers.kinds import is_convolution
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.methods.prune.ranking import most_important, some_go, survivors_of
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task

Kernel = tuple[Weight, Weight]
"""A kernel as its form holds it, and as the weight of the layer that runs it: a factor's groups are only visible there."""


def kernels_in(method: Any, view: View, task: Task) -> tuple[View, list[Kernel]] | None:
    """Return the kernels of convolutions that `where` selects, with the view in which they run; None if there are none."""
    pieces = view.pieces(method.where)
    seen, read = view.as_run(pieces)
    found = [(piece, weight) for piece, weight in zip(pieces, read, strict=True) if is_kernel(weight)]
    return (seen, found) if found else None


def columns_go(method: Any, view: View, task: Task) -> bool:
    """Return whether fewer columns stay than are there."""
    found = kernels_in(method, view, task)
    there = [columns_alive(weight) for _, weight in found[1]] if found else []
    return some_go(there, method.keep, method.across)


KERNELS = Need(
    "a convolution whose kernel has more than one column",
    kernels_in,
    "use prune/channels or prune/weights for other layers",
)


@dataclass(frozen=True)
class PrunePositions(Method):
    """Group-wise brain damage: remove whole columns of a convolution's patch matrix.  Lebedev, Lempitsky, 2016.

    A column of the patch matrix (im2col) is one input channel at one kernel position. A column that is zero in every
    filter need not be gathered, and what remains is a smaller dense product: `cortado.lowering.positions.gather_positions` runs
    it. In a grouped convolution a column belongs to one group. A column's importance is the sum over its weights:
    `magnitude` gives the group's L1 norm, `magnitude_l2` its L2 norm, `curvature` the group form of Optimal Brain
    Damage. A low-rank convolution loses columns of its factors. Columns pruned before stay pruned and count; kernels
    with a single column are skipped.
    """

    lossy = True
    needs = (KERNELS, Need("more columns alive than it keeps", columns_go, "lower keep"))
    leaves = (Leaves.ZEROS,)

    keep: float = knob(0.5, low=0.0, high=1.0, help="share of columns kept")
    by: str | Importance | type[Importance] = knob("magnitude", help="importance measure, summed over a column")
    across: bool = knob(False, help="rank across layers, so that some lose more than others")

    def apply(self, view: View, task: Task) -> None:
        found = KERNELS.require(self, view, task)
        assert found is not None
        seen, kernels = found
        weights = [weight for _, weight in kernels]
        before = [survivors_of(weight) for weight in weights]
        there = [columns_alive(weight) for weight in weights]
        worths = [columns(s, weight) for s, weight in zip(score(self.by).of(weights, seen, task), weights, strict=True)]
        chosen = most_important(worths, there, self.keep, self.across)
        for (piece, weight), mask, kept in zip(kernels, before, chosen, strict=True):
            if not bool(kept.any()):
                raise BadValue(
                    f"{self.name()}: nothing of {piece.title} would be left. Raise keep, or exclude it with where."
                )
            piece.select(mask & filters(kept, weight))


def is_kernel(weight: Weight) -> bool:
    """Return whether a weight is the kernel of a convolution (not a transposed one) with more than one column."""
    if not is_convolution(weight.layer) or weight.name != "weight" or not weight.shape.numel():
        return False
    return weight.shape[1:].numel() * weight.layer.groups > 1


def columns_alive(weight: Weight) -> Tensor:
    """Return which columns of a kernel have an entry that was not pruned before: (groups, C / groups, ...)."""
    return columns(survivors_of(weight).float(), weight) > 0


def columns(values: Tensor, weight: Weight) -> Tensor:
    """Sum the values of a kernel (N, C / groups, ...) over the filters of each group: (groups, C / groups, ...)."""
    groups: int = weight.layer.groups  # type: ignore[assignment]
    return values.float().unflatten(0, (groups, -1)).sum(1)


def filters(kept: Tensor, weight: Weight) -> Tensor:
    """Expand a mask of columns (groups, C / groups, ...) to the shape of the kernel."""
    return kept.repeat_interleave(weight.shape[0] // len(kept), 0)
