"""prune/blocks: leave whole residual blocks out, those first whose absence hurts least."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadNetwork, BadTask, BadValue, NothingChanged
from cortado.layers.bypass import Bypass
from cortado.methods.method import Method, knob
from cortado.network.graph.blocks import find_blocks, left_out
from cortado.network.view import View
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.task.measure import run
from cortado.task.task import Task, to_device

BATCH = 128
Hurt = Callable[[nn.Module], float]


@dataclass(frozen=True)
class PruneBlocks(Method):
    """Put out blocks whose output has the shape of their input; what stands there passes its input on.

    Veit, Wilber, Belongie, 2016, saw that residual networks hardly miss a block; Chen, Zhao, 2018, remove them for good.
    The block to go is the one without which calibration data give the least loss (`loss`), or outputs nearest to
    those before the stage (`kl`); after each one all others are measured again. A network of n blocks that keeps m
    takes about (n - m)(n + m) / 2 passes over the data. `where` takes a block when it takes all its matrices.
    """

    lossy = True

    keep: float = knob(0.75, low=0.0, high=1.0, help="share of the original network's blocks that stays")
    count: int | None = knob(None, low=1, help="how many blocks to put out, instead of a share")
    by: str = knob("kl", one_of=("kl", "loss"), help="what tells the block that matters least")
    samples: int = knob(512, low=1, help="calibration samples it is measured on")

    def apply(self, view: View, task: Task) -> None:
        chosen = {weight.path for weight in view.weights(self.where)}
        all_blocks = find_blocks(view.network, view.example)
        blocks = [path for path in all_blocks if taken(view, path, chosen)]
        if not blocks:
            raise NothingChanged(
                f"{self.name()}: {type(view.network).__name__} has no block to put out where {self.where}: no module, with "
                "layers inside, gives what it takes in shape and can be left out. Use prune/channels or prune/weights."
            )
        goal = self.goal(view, len(all_blocks), len(blocks))
        hurt = self.measure(view, task)
        with view.progress.bar(self.name(), goal) as bar:
            for _ in range(goal):
                hurts = {path: without(view.network, path, hurt) for path in blocks}
                least = min(hurts, key=lambda path: hurts[path])
                if not math.isfinite(hurts[least]):
                    raise BadNetwork(
                        f"{self.name()}: the network fails without any one of {', '.join(blocks)}. Raise keep."
                    )
                view.replace(least, Bypass())
                blocks.remove(least)
                bar.advance()

    def goal(self, view: View, present: int, able: int) -> int:
        """How many blocks are to go."""
        if self.count is not None:
            goal = self.count
        else:
            # Blocks that went in an earlier stage count, as dropped weights do.
            goal = present - round(self.keep * max(present, len(find_blocks(view.original, view.example))))
        if goal > able:
            raise BadValue(f"{self.name()}: {goal} blocks are to go and only {able} of {present} can. Raise keep.")
        if goal < 1:
            raise NothingChanged(
                f"{self.name()}: keep={self.keep:g} leaves all {present} blocks of {type(view.network).__name__}. Lower keep."
            )
        return goal

    def measure(self, view: View, task: Task) -> Hurt:
        """What a network loses on calibration data: its loss, or its distance from the network as it is now."""
        assert task.calibration is not None
        device = own_device(view.network)
        batches = [
            (to_device(inputs, device), targets.to(device))
            for inputs, targets in task.calibration.first(self.samples).batches(BATCH)
        ]
        total = sum(len(targets) for _, targets in batches)
        if self.by == "loss":
            return lambda network: sum(
                float(task.loss(run(network, inputs), targets)) * len(targets) / total for inputs, targets in batches
            )
        now = [log_shares(eval_outputs(view.network, inputs)) for inputs, _ in batches]
        return lambda network: sum(
            float(functional.kl_div(log_shares(run(network, inputs)), before, reduction="sum", log_target=True)) / total
            for (inputs, _), before in zip(batches, now, strict=True)
        )


def taken(view: View, path: str, chosen: set[str]) -> bool:
    """Whether all matrices and kernels of a block were chosen."""
    own = [w.path for w in view.all_weights if len(w.shape) > 1 and w.path.startswith(path + ".")]
    return bool(own) and all(one in chosen for one in own)


def without(network: nn.Module, path: str, hurt: Hurt) -> float:
    """What the network loses when a block passes its input on; infinite when it does not run then."""
    try:
        with eval_mode(network), left_out(network, path):
            found = hurt(network)
    except BadNetwork:
        return math.inf
    return found if math.isfinite(found) else math.inf


def eval_outputs(network: nn.Module, inputs: object) -> object:
    """Outputs in eval mode, without gradients."""
    with eval_mode(network):
        return run(network, inputs)


def log_shares(outputs: object) -> Tensor:
    """Log probabilities of outputs (N, classes).  Raises BadTask for others."""
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise BadTask(f"prune/blocks: by=kl needs outputs of shape (N, classes), got {shape}. Take by=loss.")
    return functional.log_softmax(outputs.float(), 1)
