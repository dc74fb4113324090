"""balance: routers that use all their experts alike."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.knobs.knob import knob
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.blocks.block import blocks_in
from cortado.parts.blocks.experts import Experts, Routing
from cortado.task.task import Task
from cortado.training.objectives.layer_pairs import paths_in
from cortado.training.objectives.objective import Objective, Taps, Terms, TrainingStep

LEAST = 1e-10


@dataclass(frozen=True)
class Balance(Objective):
    """CV(importance)^2 + `load` x CV(load)^2 of the experts over a batch.  Shazeer et al., 2017, sections 4 and A.

    An expert's importance is the sum of its weights over the rows, its load the expected number of rows that choose it; CV
    is deviation over mean. Without noise, load counts rows and teaches nothing. The mean over routers.
    """

    recordable: ClassVar[bool] = True

    weight: float = knob(0.1, low=0.0, help="factor of the terms in the loss")
    load: float = knob(1.0, low=0.0, help="factor of the load beside the importance")
    at: str = knob("", help="routers by path, with commas; empty: all that the network has")

    def on(self, view: View, weights: list[Weight], task: Task) -> Objective:
        if self.at:
            return self
        found = [
            f"{path}.expert_router".lstrip(".") for path, block in blocks_in(view.network) if isinstance(block, Experts)
        ]
        if not found:
            raise BadNetwork("objectives/balance: the network has no experts. Use conditional/experts first.")
        return dataclasses.replace(self, at=",".join(found))

    def taps(self) -> Taps:
        return Taps(tuple(paths_in(self.at)))

    def terms(self, step: TrainingStep) -> Terms:
        found = [routing_of(step.taps[path], path) for path in paths_in(self.at)]
        unlike = [variation(one.gates * one.chosen) + self.load * variation(one.load) for one in found]
        return {"balance": torch.stack(unlike).mean()}


def routing_of(output: object, path: str) -> Routing:
    """Return what a router gave.  Raises BadNetwork for a module that is none."""
    if not isinstance(output, Routing):
        raise BadNetwork(
            f"objectives/balance: {path} is no router of experts. Name routers with at, or leave at empty."
        )
    return output


def variation(shares: Tensor) -> Tensor:
    """Return (deviation over mean)^2 of the sums over rows (rows, experts)."""
    sums = shares.sum(0)
    return sums.var(correction=0) / sums.mean().square().clamp_min(LEAST)
