"""prune/weights: remove the least important weights, anywhere in a layer."""

from dataclasses import dataclass

from torch import Tensor

from cortado.errors import BadValue
from cortado.importance.importance import Importance, score
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.methods.prune.granularity import blocks_alive, most_important_blocks, read_block
from cortado.methods.prune.ranking import some_go, survivors_of
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.task import Task


@dataclass(frozen=True)
class PruneWeights(Method):
    """Set the least important weights to zero and keep them there.  Han, Pool, Tran, Dally, 2015.

    `keep` is the share of all weights kept; weights pruned before stay pruned and count. With `threshold` instead,
    prune weights with an importance below threshold x the standard deviation of their layer (the paper's quality
    factor). A low-rank weight is pruned in its factors, filters made from fewer in those. `by` is magnitude, magnitude_l2,
    activation, taylor, curvature (Optimal Brain Damage), random, or your own. Entries of a `block` of rows x columns stay or
    go together, by the sum of their importance; `keep` is then the share of blocks. Rows are outputs: with 16x1 our sparse
    product in ONNX Runtime is faster at the same share of zeros.
    """

    lossy = True
    needs = (Need("more entries alive than it keeps", lambda method, view, task: method.drops(view), "lower keep"),)
    leaves = (Leaves.ZEROS,)

    keep: float = knob(0.5, low=0.0, high=1.0, help="share of weights kept")
    by: str | Importance | type[Importance] = knob("magnitude", help="importance measure that ranks the weights")
    across: bool = knob(False, help="rank across layers, so that some lose more than others")
    of: str = knob(
        "all", one_of=("all", "survivors"), help="what keep is a share of: all weights, or those still there"
    )
    threshold: float | None = knob(None, low=0.0, help="instead of keep: prune below this many standard deviations")
    block: str = knob("1x1", help="rows x columns that stay or go together, such as 16x1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if read_block(self.block, self.name()) != (1, 1) and self.threshold is not None:
            raise BadValue(
                f"{self.name()}: a threshold is for single weights, got block={self.block}. Use keep instead."
            )

    def apply(self, view: View, task: Task) -> None:
        weights = self.chosen(view)
        runs, run = view.as_run(weights)
        found = score(self.by).of(run, runs, task)
        importances = [weight.form.pooled(one) for weight, one in zip(weights, found, strict=True)]
        for weight, mask in zip(weights, self.masks(weights, importances), strict=True):
            if not bool(mask.any()):
                raise BadValue(
                    f"{self.name()}: nothing of {weight.title} would be left. Raise keep, or exclude it with where."
                )
            weight.select(mask)

    def chosen(self, view: View) -> list[Weight]:
        """Return the weights to prune, low-rank ones as their factors."""
        return [weight for weight in view.pieces(self.where) if weight.shape.numel()]

    def drops(self, view: View) -> bool:
        """Return whether fewer entries stay than are there; a threshold only knows when the entries are ranked."""
        there = [survivors_of(weight) for weight in self.chosen(view)]
        if self.threshold is not None:
            return any(bool(mask.any()) for mask in there)
        alive = blocks_alive(there, read_block(self.block, self.name()))
        return some_go(alive, self.keep, self.across, self.of == "survivors")

    def masks(self, weights: list[Weight], importances: list[Tensor]) -> list[Tensor]:
        """Return what to keep of each weight."""
        there = [survivors_of(weight) for weight in weights]
        if self.threshold is None:
            block, of_survivors = read_block(self.block, self.name()), self.of == "survivors"
            return most_important_blocks(importances, there, block, self.keep, self.across, of_survivors)
        limits = [
            self.threshold * spread_or_size(weight.dense()[mask]) for weight, mask in zip(weights, there, strict=True)
        ]
        return [(s.to(m.device) >= limit) & m for s, m, limit in zip(importances, there, limits, strict=True)]


def spread_or_size(values: Tensor) -> float:
    """Return the standard deviation, or the magnitude of a single value."""
    return float(values.std() if values.numel() > 1 else values.abs().sum())
