"""open_share: each gate is open for a wanted share of the samples."""

from dataclasses import dataclass

import torch

from cortado.knobs.knob import knob
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.blocks.gate import OPENS, Gate
from cortado.task.task import Task
from cortado.training.objectives.block_taps import at_blocks, taps_in
from cortado.training.objectives.objective import Objective, Taps, Terms, TrainingStep


@dataclass(frozen=True)
class OpenShare(Objective):
    """The mean over gates of (share of a batch for which the gate is open - target)^2.  Veit and Belongie, 2018.

    Each gate is held to the target by itself, as in the paper, which sums over gates instead.
    """

    weight: float = knob(10.0, low=0.0, help="factor of the squared distance in the loss")
    target: float = knob(0.6, low=0.0, high=1.0, help="share of the samples for which a gate should be open")
    at: str = knob("", help="gates by path, with commas; empty: all that the network has")

    def on(self, view: View, weights: list[Weight], task: Task) -> Objective:
        return at_blocks(self, view, Gate, "conditional/gates")

    def taps(self) -> Taps:
        return taps_in(self.at, OPENS)

    def terms(self, step: TrainingStep) -> Terms:
        shares = torch.stack([step.taps[tap].mean() for tap in self.taps().network])
        step.figures["share of open gates"] = shares.detach().mean()
        return {"open_share": (shares - self.target).square().mean()}
