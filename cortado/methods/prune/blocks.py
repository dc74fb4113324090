"""prune/blocks: remove whole residual blocks, those that matter least first."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from cortado.errors import BadNetwork, BadValue
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.network.compare.divergence import divergence_for, output_rows
from cortado.network.graph.blocks import find_blocks, left_out
from cortado.network.view import View
from cortado.parts.blocks.bypass import Bypass
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import sample_count, to_device
from cortado.task.measure import run
from cortado.task.outputs.outputs import in_float64
from cortado.task.task import Task

BATCH = 128
Hurt = Callable[[nn.Module], float]


def removable(method: Any, view: View, task: Task) -> list[str]:
    """Return the blocks whose matrices and kernels `where` selects."""
    chosen = {weight.path for weight in view.weights(method.where)}
    return [path for path in view.blocks if taken(view, path, chosen)]


BLOCKS = Need(
    "a block whose output has the shape of its input, and is no chain of layers",
    removable,
    "use prune/channels or prune/weights",
)


GOAL: Need[int] = Need("more blocks than it keeps", lambda method, view, task: method.goal(view), "lower keep")


@dataclass(frozen=True)
class PruneBlocks(Method):
    """Remove blocks whose output has the shape of their input; an identity replaces them.

    Veit, Wilber, Belongie, 2016, found that residual networks barely need single blocks; Chen, Zhao, 2018, remove them.
    The next block to go is the one whose removal gives the lowest calibration loss (`loss`), or outputs closest to
    those before the stage (`kl`); after each removal all others are measured again. Going from n blocks to m takes
    about (n - m)(n + m) / 2 passes over the data. `where` selects a block if it selects all its matrices.
    """

    lossy = True
    needs = (BLOCKS, GOAL)
    leaves = (Leaves.FEWER_BLOCKS,)

    keep: float = knob(0.75, low=0.0, high=1.0, help="share of the original network's blocks kept")
    count: int | None = knob(None, low=1, help="number of blocks to remove, instead of keep")
    by: str = knob("kl", one_of=("kl", "loss"), help="what is measured without a block")
    samples: int = knob(512, low=1, help="calibration samples for the measurement")

    def apply(self, view: View, task: Task) -> None:
        blocks, goal = BLOCKS.require(self, view, task), GOAL.require(self, view, task)
        if goal > len(blocks):
            raise BadValue(
                f"{self.name()}: cannot remove {goal} blocks: only {len(blocks)} of {len(view.blocks)} can go. Raise keep."
            )
        hurt = self.measure(view, task)
        with view.progress.bar(self.name(), goal) as bar:
            for _ in range(goal):
                hurts = {path: without(view.network, path, hurt) for path in blocks}
                least = min(hurts, key=lambda path: hurts[path])
                if not math.isfinite(hurts[least]):
                    raise BadNetwork(
                        f"{self.name()}: the network fails without any one of {', '.join(blocks)}. Raise keep."
                    )
                view.wrap(least, Bypass())
                blocks.remove(least)
                bar.advance()

    def goal(self, view: View) -> int:
        """Return how many blocks to remove."""
        if self.count is not None:
            return self.count
        # Blocks removed in an earlier stage count, as pruned weights do.
        present, first = len(view.blocks), len(find_blocks(view.base, view.example))
        return max(0, present - round(self.keep * max(present, first)))

    def measure(self, view: View, task: Task) -> Hurt:
        """Return the function to minimise on calibration data: the loss, or the divergence from the current network."""
        assert task.calibration is not None
        device = own_device(view.network)
        batches = [
            (to_device(inputs, device), to_device(targets, device))
            for inputs, targets in task.calibration.first(self.samples).batches(BATCH)
        ]
        total = sum(sample_count(targets) for _, targets in batches)
        if self.by == "loss":
            return lambda network: sum(
                float(task.loss(run(network, inputs), targets)) * sample_count(targets) / total
                for inputs, targets in batches
            )
        kind = divergence_for(view.network, task)
        now = [in_float64(output_rows(view.network, inputs, kind)) for inputs, _ in batches]
        return lambda network: sum(
            float(kind.divergence(before, in_float64(kind.rows(run(network, inputs)))).sum()) / total
            for (inputs, _), before in zip(batches, now, strict=True)
        )


def taken(view: View, path: str, chosen: set[str]) -> bool:
    """Return whether all matrices and kernels of a block were chosen."""
    own = [w.path for w in view.all_weights if len(w.shape) > 1 and w.path.startswith(path + ".")]
    return bool(own) and all(one in chosen for one in own)


def without(network: nn.Module, path: str, hurt: Hurt) -> float:
    """Return the measure without a block; infinite if the network does not run without it."""
    try:
        with eval_mode(network), left_out(network, path):
            found = hurt(network)
    except BadNetwork:
        return math.inf
    return found if math.isfinite(found) else math.inf
