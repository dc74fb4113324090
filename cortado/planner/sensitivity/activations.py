"""Sensitivity of activations: the predicted KL of rounding them, and of cutting channels.

Each quantizer's error is added times a scalar that is zero. The gradient with respect to that scalar is the sum of gradient
times error over all positions, so nothing is stored and one-sided errors add up. Half its mean square over samples, with the
slope of the generalised Gauss-Newton matrix at temperature 2, is the predicted KL in nats.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cortado.engine.recipe import read_recipe
from cortado.engine.stage import apply_stage, start
from cortado.importance.curvature import Curvature
from cortado.network.compare.divergence import divergence_for
from cortado.network.coupling.groups import Group
from cortado.network.graph.trace import call_with
from cortado.network.statistics.gradients import released
from cortado.network.view import View
from cortado.parts.activations.quantizer import PREFIX, ActivationQuantizer, sites
from cortado.planner.sensitivity.sensitivity import SAMPLES
from cortado.task.task import Task

Place = tuple[str, str]
"""Path of a layer, and the side (input or output) of its quantizer."""
WHOLE_CHANNELS = 2.0
"""Factor from the sum of single-channel sensitivities to the cost of a cut."""


class Nudged(nn.Module):
    """Adds the rounding error times an entry of `amounts`, which is zero, to an activation."""

    def __init__(self, quantizer: ActivationQuantizer, amounts: Tensor, number: int) -> None:
        super().__init__()
        self.quantizer, self.number = quantizer, number
        self.amounts = [amounts]
        """In a list, so that it does not become a parameter of the network."""

    def forward(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            error = self.quantizer(values) - values
        return values + self.amounts[0][self.number] * error


def activation_sensitivities(
    network: nn.Module, original: nn.Module, task: Task, line: str, samples: int = SAMPLES
) -> dict[tuple[Place, ...], float]:
    """Return the nats that each quantizer of a recipe ("quantize/activations bits=4") costs alone, by its places."""
    assert task.calibration is not None
    made = copy.deepcopy(network)
    for stage in read_recipe(line).stages:
        apply_stage(stage, start(made, original, task.example), task, match_moments=False)
    duplicate = released(made).requires_grad_(False)
    places: dict[int, list[Place]] = {}
    for place, quantizer in sites(duplicate).items():
        places.setdefault(id(quantizer), []).append(place)
    amounts, order = torch.zeros(len(places), requires_grad=True), list(places)
    modules = dict(duplicate.named_modules())
    for (path, side), quantizer in sites(duplicate).items():
        modules[path]._modules[PREFIX + side] = Nudged(quantizer, amounts, order.index(id(quantizer)))
    slope: Any = Curvature().slope(task.generator(37), divergence_for(original, task))
    data, total = task.calibration.first(samples), torch.zeros(len(places), dtype=torch.float64)
    for inputs, targets in data.batches(1):
        (found,) = torch.autograd.grad(slope(call_with(duplicate, inputs), targets), [amounts])
        total += found.double().square()
    return {tuple(places[key]): float(value) / (2 * len(data)) for key, value in zip(order, total, strict=True)}


def channel_sensitivities(view: View, task: Task, groups: list[Group]) -> list[Tensor]:
    """Return the nats that cutting each unit of each group costs, (units,) of float64 per group; a cut costs their sum."""
    return [WHOLE_CHANNELS * units.double() for units in Curvature().of_units(groups, view, task)]
