"""Torch-Pruning's group-norm pruner (Fang et al., 2023) cutting a network to a share of its multiply-adds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.rivals.optional import torch_pruning

STEPS = 400
"""Steps from the whole network to nothing; the authors' own CIFAR runs take 400 or 200."""


@dataclass(frozen=True)
class PtqConfig:
    """How the pruner is set up.

    `across`: ranks across layers, not within each. `streams`: cuts what runs through the shortcuts too. `learn`: share
    of the epochs that go into sparse learning before the cut.
    """

    across: bool = True
    normalizer: str = "mean"
    streams: bool = False
    learn: float = 0.0

    def pruner(self, network: nn.Module, example: torch.Tensor, ignored: Sequence[nn.Module]) -> Any:
        """The pruner, stock but for what this way says."""
        tp = torch_pruning()
        return tp.pruner.GroupNormPruner(
            network,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2, normalizer=self.normalizer),
            global_pruning=self.across,
            pruning_ratio=1.0,
            iterative_steps=STEPS,
            ignored_layers=list(ignored),
        )


def cut_until(pruner: Any, enough: Callable[[], bool]) -> None:
    """Step by step, and group by group within a step, until `enough()`.

    Ending between two groups hits the wanted share as closely as the pruner can, where all layers move in one step.
    """
    while True:
        if pruner.current_step >= STEPS:
            raise SystemExit("bench: the rival's pruner came to its end before enough was cut.")
        for group in pruner.step(interactive=True):
            group.prune()
            if enough():
                return


class Regularised(torch.optim.SGD):
    """SGD whose every step first lets the pruner add its group regulariser to the gradients (sparse learning)."""

    def __init__(self, groups: Any, rate: float, pruner: Any, network: nn.Module) -> None:
        super().__init__(groups, rate, momentum=0.9)
        self.pruner, self.network = pruner, network

    def step(self, closure: Any = None) -> Any:
        self.pruner.regularize(self.network)
        return super().step(closure)
