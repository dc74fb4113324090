"""ponder: what it costs to pass blocks, for networks in which samples or positions halt."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from cortado.knobs.knob import knob
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.blocks.ponder import Ponder
from cortado.task.task import Task
from cortado.training.objectives.block_taps import at_blocks, taps_in
from cortado.training.objectives.objective import Objective, Taps, Terms, TrainingStep


@dataclass(frozen=True)
class PonderCost(Objective):
    """The blocks that a place passes and its remainder, averaged over places and summed over stages.  Graves, 2016.

    `weight` is the tau of Figurnov et al., 2017: the larger, the sooner places halt.
    """

    recordable: ClassVar[bool] = True

    weight: float = knob(0.01, low=0.0, help="factor of the cost in the loss, tau")
    at: str = knob("", help="stages that halt by path, with commas; empty: all that the network has")

    def on(self, view: View, weights: list[Weight], task: Task) -> Objective:
        return at_blocks(self, view, Ponder, "conditional/ponder")

    def taps(self) -> Taps:
        return taps_in(self.at, "ponder_cost")

    def terms(self, step: TrainingStep) -> Terms:
        return {"ponder": torch.stack([step.taps[tap].mean() for tap in self.taps().network]).sum()}
