"""Early exits: one proposal of an exit in the middle, where latency counts and such an exit can pay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cortado.errors import CortadoError
from cortado.methods.conditional.exits import ConditionalExits, classes_of, middle_place
from cortado.methods.conditional.thresholds import (
    BY_HEART,
    ENOUGH,
    ConditionalThresholds,
    stopping_costs,
    sures_in,
    upper_bound,
)
from cortado.network.profile.profile import profile
from cortado.network.view import View, working_copy
from cortado.parts.blocks.rows import confidence
from cortado.planner.search.proposal import Proposal, stages_of
from cortado.planner.search.shapes import Shape, integers
from cortado.planner.search.trials import SearchGoal, Trial
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode
from cortado.task.measure import mean_score
from cortado.task.task import Task
from cortado.training.training import Training

LEAST_GAIN = 0.1
"""Share of the multiply-adds that an exit must be able to save: choosing rows takes time itself."""
SURE = 0.95
"""Confidence from which the last answer counts as sure. An exit is hardly ever sure of more samples."""


@dataclass
class EarlyExits:
    """Proposes one exit in the middle of a network; its heads train, and `lose` percent of samples may be harmed."""

    wanted: SearchGoal
    network: nn.Module
    task: Task
    lose: float
    tail: str = ""

    def next(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """Return the proposal; None once tried, without time to train, and where it cannot pay."""
        lasting = epochs(Shape("", True, 0.0, 0))
        tried = any(ConditionalExits.name() in stage for one in trials for stage in one.recipe.get("stages") or [])
        if (
            tried
            or lasting <= 0
            or not self.wanted.time_counts
            or not self.can_be_judged()
            or self.largest_gain() < LEAST_GAIN
        ):
            return None
        last = ConditionalThresholds(lose=float(f"{self.lose:.3g}"))
        stages = [
            ConditionalExits(training=Training(epochs=lasting)),
            *integers(),
            *stages_of(self.tail),
            last,
        ]
        return Proposal.of(stages, f"exit in the middle, integers, lose={last.lose:g}")

    def can_be_judged(self) -> bool:
        """Return whether the validation data can bound the harm: there are enough, and not known by heart."""
        data, metric = self.task.validation, self.task.metric
        enough = upper_bound(0, len(data), ConditionalThresholds().sure) <= self.lose / 100
        if not enough or metric.whole is not None or metric.value is not None or not metric.higher_is_better:
            return False
        return len(data) < ENOUGH or mean_score(self.network, data, metric) < BY_HEART * metric.scale

    def largest_gain(self) -> float:
        """Return the share of multiply-adds that an exit in the middle saves if all samples that can be sure leave there.

        It pays if the share of samples that leave is larger than its cost over that of what follows. 0 without a place.
        """
        try:
            view = View(working_copy(self.network), self.network, self.task.example)
            method, place = ConditionalExits(), middle_place(None, view)
            if not place:
                return 0.0
            view.wrap("", method.exit_after(method.call_of(view, place), view, classes_of(view)))
            placed = View(view.network, self.network, self.task.example)
            early, last = stopping_costs(placed, sures_in(placed.network))
        except CortadoError:
            # What cannot be traced has no exit.
            return 0.0
        alone = profile(self.network, self.task.example).total("multiply_adds").value or last
        return (sure_share(self.network, self.task) * (last - early) - (last - alone)) / alone


def sure_share(network: nn.Module, task: Task) -> float:
    """Return the share of validation samples of which the last answer is sure."""
    with eval_mode(network):
        sure = [confidence(call(network, inputs), "top") > SURE for inputs, _ in task.validation.batches(256)]
    return float(torch.cat(sure).float().mean())
