"""balance: routers that use all their experts alike."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cortado.knobs.knob import knob
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.blocks.experts import Experts
from cortado.task.task import Task
from cortado.training.objectives.block_taps import at_blocks, taps_in
from cortado.training.objectives.objective import Objective, Taps, Terms, TrainingStep

LEAST = 1e-10
ROUTER = "expert_router"


@dataclass(frozen=True)
class Balance(Objective):
    """CV(importance)^2 + `load` x CV(load)^2 of the experts over a batch.  Shazeer et al., 2017, sections 4 and A.

    An expert's importance is the sum of its weights over the rows, its load the expected number of rows that choose it; CV
    is deviation over mean. Without noise, load counts rows and teaches nothing. The mean over routers.
    """

    recordable: ClassVar[bool] = True

    weight: float = knob(0.1, low=0.0, help="factor of the terms in the loss")
    load: float = knob(1.0, low=0.0, help="factor of the load beside the importance")
    at: str = knob("", help="layers of experts by path, with commas; empty: all that the network has")

    def on(self, view: View, weights: list[Weight], task: Task) -> Objective:
        return at_blocks(self, view, Experts, "conditional/experts")

    def taps(self) -> Taps:
        return taps_in(self.at, ROUTER)

    def terms(self, step: TrainingStep) -> Terms:
        found = [step.taps[tap] for tap in self.taps().network]
        unlike = [variation(one.gates * one.chosen) + self.load * variation(one.load) for one in found]
        return {"balance": torch.stack(unlike).mean()}


def variation(shares: Tensor) -> Tensor:
    """Return (deviation over mean)^2 of the sums over rows (rows, experts)."""
    sums = shares.sum(0)
    return sums.var(correction=0) / sums.mean().square().clamp_min(LEAST)
