"""open_share: each gate is open for a wanted share of the samples."""

from dataclasses import dataclass, replace

import torch

from cortado.errors import BadNetwork
from cortado.knobs.knob import knob
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.blocks.block import blocks_in
from cortado.parts.blocks.gate import OPENS, Gate
from cortado.task.task import Task
from cortado.training.objectives.objective import Objective, Taps, Terms, TrainingStep


@dataclass(frozen=True)
class OpenShare(Objective):
    """The mean over gates of (share of a batch for which the gate is open - target)^2.  Veit and Belongie, 2018.

    Each gate is held to the target by itself, as in the paper, which sums over gates instead.
    """

    weight: float = knob(10.0, low=0.0, help="factor of the squared distance in the loss")
    target: float = knob(0.6, low=0.0, high=1.0, help="share of the samples for which a gate should be open")
    gates: tuple[str, ...] = knob((), help="the gates by path; all of the network's if none is given")

    def on(self, view: View, weights: list[Weight], task: Task) -> Objective:
        found = tuple(path for path, block in blocks_in(view.network) if isinstance(block, Gate))
        if not found:
            raise BadNetwork(
                "objectives/open_share: the network has no gates. Put conditional/gates before this stage."
            )
        return self if self.gates else replace(self, gates=found)

    def taps(self) -> Taps:
        return Taps(network=tuple(f"{path}.{OPENS}" for path in self.gates))

    def terms(self, step: TrainingStep) -> Terms:
        shares = torch.stack([step.taps[tap].mean() for tap in self.taps().network])
        step.figures["share of open gates"] = shares.detach().mean()
        return {"open_share": (shares - self.target).square().mean()}
