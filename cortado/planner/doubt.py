"""Doubt: changes that the curvature cannot vouch for are measured, one weight at a time.

A quadratic form is right near the plain weight only: it takes what costs more than a nat for several times less, and low
rank moves outputs together, which a diagonal does not see. Such a change is made alone, the mean and the spread of each output
are given back, and the divergence is taken at softmax temperature 4, where a few samples tell what it takes many
to tell at 1. One factor, fitted on changes of which the curvature is sure, brings it into the same nats.
"""

import copy
import math
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn

from cortado.forms.form import Form
from cortado.forms.hold import plain_form
from cortado.forms.low_rank import LowRank
from cortado.network.divergence import Nats, answers
from cortado.network.view import Weight, parameter_places
from cortado.planner.currency import Price, shifting
from cortado.task import Task

SURE, DOUBTED = 0.01, 0.1
"""Nats: between them the curvature is believed and held against what is measured; above, it is not believed."""
TEMPERATURE, SAMPLES = 4.0, 16
LEAST_SURE, MOST_SURE = 3, 24
"""So many sure changes give the factor, one of a weight (of a network with fewer weights, all); with fewer, predictions stay."""
HOPELESS, BEATEN = 1.5, 1.5
"""What is predicted to cost so many nats is not measured, nor what costs so many times more than something smaller."""


@dataclass
class Doubt:
    """A twin of the network in which one weight at a time is changed; `known` are logarithms of nats over what was measured."""

    network: nn.Module
    task: Task
    nats: Nats
    known: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.task.calibration is not None
        self.twin = copy.deepcopy(self.network)
        self.weights = {weight.path: weight for weight in parameter_places(self.twin)}
        self.inputs = [inputs for inputs, _ in self.task.calibration.first(SAMPLES).batches(32)]
        self.wanted: list[Tensor] = []

    def measured(self, path: str, price: Price, changed: Tensor, form: Form, damage: float) -> float | None:
        """The divergence of a change of `damage` that is doubted, at the temperature; None for one that is believed.

        One of each weight that is believed is measured too, for the factor.
        """
        if isinstance(form, LowRank) or damage > DOUBTED:
            return self.apart(self.weights[path], price, changed, form)
        if damage >= SURE and path not in self.known and len(self.known) < MOST_SURE:
            found = self.apart(self.weights[path], price, changed, form)
            if found > 0:
                self.known[path] = math.log(damage / found)
        return None

    @property
    def factor(self) -> float | None:
        """Nats for a unit of what is measured, the median; None where too little is sure."""
        many = sum(len(weight.shape) > 1 for weight in self.weights.values())
        if len(self.known) < min(LEAST_SURE, max(1, many)):
            return None
        return math.exp(median(self.known.values()))

    def apart(self, weight: Weight, price: Price, changed: Tensor, form: Form) -> float:
        """The mean divergence of all answers with one weight changed, softened by the temperature."""
        cold = TEMPERATURE if self.nats.variance is None else 1.0
        if not self.wanted:
            self.wanted = [answers(self.twin, inputs).double() / cold for inputs in self.inputs]
        plain = weight.dense()
        given = price.given_back(plain, changed, form)
        shift = price.shift(plain, given)
        hooks = [] if shift is None else [weight.layer.register_forward_hook(shifting(shift))]
        held = weight.form
        try:
            weight.put(plain_form(given))
            found = [answers(self.twin, inputs).double() / cold for inputs in self.inputs]
        finally:
            weight.put(held)
            for hook in hooks:
                hook.remove()
        rows = [self.nats.apart(*pair) for pair in zip(self.wanted, found, strict=True)]
        return float(torch.cat(rows).mean())
