"""ponder: what it costs to pass blocks, for networks in which samples or positions halt."""

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
from cortado.parts.blocks.ponder import Ponder
from cortado.task.task import Task
from cortado.training.objectives.layer_pairs import paths_in
from cortado.training.objectives.objective import Objective, Taps, Terms, TrainingStep


@dataclass(frozen=True)
class PonderCost(Objective):
    """The blocks that a place passes and its remainder, averaged over places and summed over stages.  Graves, 2016.

    `weight` is the tau of Figurnov et al., 2017: the larger, the sooner places halt.
    """

    recordable: ClassVar[bool] = True

    weight: float = knob(0.01, low=0.0, help="factor of the cost in the loss, tau")
    at: str = knob("", help="costs by path, with commas; empty: those of all stages that halt")

    def on(self, view: View, weights: list[Weight], task: Task) -> Objective:
        if self.at:
            return self
        found = [
            f"{path}.ponder_cost".lstrip(".") for path, block in blocks_in(view.network) if isinstance(block, Ponder)
        ]
        if not found:
            raise BadNetwork("objectives/ponder: no stage of the network halts. Use conditional/ponder first.")
        return dataclasses.replace(self, at=",".join(found))

    def taps(self) -> Taps:
        return Taps(tuple(paths_in(self.at)))

    def terms(self, step: TrainingStep) -> Terms:
        return {"ponder": torch.stack([cost_of_places(step.taps[path], path) for path in paths_in(self.at)]).sum()}


def cost_of_places(cost: object, path: str) -> Tensor:
    """Return the mean cost over places.  Raises BadNetwork for what is none."""
    if not isinstance(cost, Tensor) or not cost.is_floating_point():
        raise BadNetwork(f"objectives/ponder: {path} gives no cost. Leave at empty.")
    return cost.mean()
