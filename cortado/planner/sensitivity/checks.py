"""Doubt: changes that the curvature cannot vouch for are measured, one weight at a time.

A quadratic form is right near the plain weight only: it takes what costs more than a nat for several times less, and low
rank moves outputs together, which a diagonal does not see. Such a change is made alone, the mean and the spread of each output
are given back, and the divergence is taken at softmax temperature 4, where a few samples tell what it takes many
to tell at 1. Changes of which the curvature is sure, a few of each weight, are measured too: their median brings what is
measured into the same nats, and a weight whose changes cost more or less than that is believed to cost so again.
"""

import copy
import math
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import nn

from cortado.network.compare.divergence import Divergence
from cortado.network.compare.replay import Replay
from cortado.network.graph.trace import device_of
from cortado.network.view import parameter_places
from cortado.parts.forms.attach import dense_form
from cortado.parts.forms.form import Form
from cortado.parts.forms.low_rank import LowRank
from cortado.planner.sensitivity.sensitivity import Sensitivity, shifting
from cortado.task.task import Task, to_device

TRUSTED_BELOW, MEASURED_ABOVE = 1e-5, 0.02
"""Nats: between them the curvature is believed and held against what is measured; above, it is not believed."""
TEMPERATURE, LEAST_SAMPLES, MOST_SAMPLES = 4.0, 16, 256
MULTIPLY_ADDS = 8e9
"""Of a change that is measured: as many samples as these pay for, within the two."""
LEAST_TRUSTED, EACH = 3, 2
"""So many sure changes give the factor (of a network with fewer weights, one for each), at most EACH of a weight; with fewer,
predictions stay."""
NOT_WORTH_MEASURING, DOMINATED = 1.5, 1.5
"""What is predicted to cost so many nats is not measured, nor what costs so many times more than something smaller."""


def samples_for(multiply_adds: float) -> int:
    """How many samples measure a change of a network that takes so many multiply-adds for each."""
    return int(min(MOST_SAMPLES, max(LEAST_SAMPLES, MULTIPLY_ADDS / max(multiply_adds, 1.0))))


@dataclass
class PredictionCheck:
    """A copy of the network in which one weight at a time is changed; `known` are logarithms of what changes of which the
    curvature is sure cost by prediction, over what was measured, by the path of their weight."""

    network: nn.Module
    task: Task
    divergence: Divergence
    samples: int = LEAST_SAMPLES
    known: dict[str, list[float]] = field(default_factory=dict)
    sure: dict[str, list[tuple[float, Form]]] = field(default_factory=dict)
    """The largest changes that are believed, EACH of a weight, rising."""

    def __post_init__(self) -> None:
        assert self.task.calibration is not None
        self.duplicate = copy.deepcopy(self.network)
        self.weights = {weight.path: weight for weight in parameter_places(self.duplicate)}
        device = device_of(self.duplicate) or torch.device("cpu")
        batches = self.task.calibration.first(self.samples).batches(32)
        self.replay = Replay(self.duplicate, [to_device(inputs, device) for inputs, _ in batches])

    def needs_measurement(self, form: Form, predicted_kl: float) -> bool:
        """Whether a prediction is not believed."""
        return isinstance(form, LowRank) or predicted_kl > MEASURED_ABOVE

    def note(self, path: str, form: Form, predicted_kl: float) -> None:
        """A change that is believed: the largest few of each weight are to be measured."""
        some = dict(self.sure.get(path, []))
        if predicted_kl >= TRUSTED_BELOW and predicted_kl not in some:
            self.sure[path] = sorted({**some, predicted_kl: form}.items(), key=lambda one: one[0])[-EACH:]

    def learn(self, path: str, sensitivity: Sensitivity) -> None:
        """Hold what is believed of a weight against what is measured."""
        for predicted_kl, form in self.sure.pop(path, []):
            found = self.measured(path, sensitivity, form)
            if found > 0:
                self.known.setdefault(path, []).append(math.log(predicted_kl / found))

    @property
    def factor(self) -> float | None:
        """Nats for a unit of what is measured, the median; None where too little is sure."""
        found = [ratio for some in self.known.values() for ratio in some]
        many = sum(len(weight.shape) > 1 for weight in self.weights.values())
        return None if len(found) < min(LEAST_TRUSTED, max(1, many)) else math.exp(median(found))

    def corrected_prediction(
        self, path: str, predicted_kl: float, found: float | None = None, low_rank: bool = False
    ) -> float:
        """Nats of a change: what was `found`, or else what is predicted, corrected as the weight's sure changes were.

        Of n ratios of a weight the share n / (n + 1) of their mean is believed, the rest is the network's: as if ratios
        varied as much within a weight as between weights.
        """
        factor, own = self.factor, self.known.get(path, [])
        if factor is None:
            return predicted_kl
        if found is not None:
            return found * factor
        if low_rank or not own:
            return predicted_kl
        return predicted_kl * math.exp((math.log(factor) - sum(own) / len(own)) * len(own) / (len(own) + 1))

    def measured(self, path: str, sensitivity: Sensitivity, form: Form) -> float:
        """The mean divergence of all answers with one weight held in a form, softened by the temperature."""
        weight = self.weights[path]
        cold = TEMPERATURE if self.divergence.variance is None else 1.0
        original = weight.dense()
        given = sensitivity.given_back(original, form.dense().detach(), form)
        shift = sensitivity.shift(original, given)
        hooks = [] if shift is None else [weight.layer.register_forward_hook(shifting(shift))]
        attached, layers = weight.form, [layer for layer, _ in weight.places]
        try:
            weight.set_form(dense_form(given))
            rows = [
                self.divergence.between(batch.wanted / cold, self.replay.answers(number, layers) / cold)
                for number, batch in enumerate(self.replay.batches)
                if batch.wanted is not None
            ]
        finally:
            weight.set_form(attached)
            for hook in hooks:
                hook.remove()
        return float(torch.cat(rows).mean())
