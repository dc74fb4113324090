"""Checks: measurements of changes, one weight at a time, where the predicted KL is uncertain.

A quadratic form holds only near the original weight: it underestimates changes above a nat several times, and a diagonal does
not see that low rank moves outputs together. Such a change is applied alone, the mean and spread of each output are restored,
and the divergence is measured at softmax temperature 4, which needs far fewer samples than temperature 1. A few trusted
changes of each weight are measured as well: the median ratio converts measurements to nats, and each weight's own ratios
correct its other predictions.
"""

import copy
import math
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import nn

from cortado.network.compare.replay import Replay
from cortado.network.graph.trace import device_of
from cortado.network.weight import parameter_places
from cortado.parts.forms.attach import dense_form
from cortado.parts.forms.form import Form
from cortado.planner.sensitivity.sensitivity import Sensitivity, shifting
from cortado.running.trees import to_device
from cortado.task.outputs.outputs import Outputs
from cortado.task.task import Task

TRUSTED_BELOW, MEASURED_ABOVE = 1e-5, 0.02
"""Nats: predictions between them are trusted and used to calibrate measurements; larger ones are measured."""
TEMPERATURE, LEAST_SAMPLES, MOST_SAMPLES = 4.0, 16, 256
MULTIPLY_ADDS = 8e9
"""Multiply-adds for one measurement, which set its samples within LEAST_SAMPLES and MOST_SAMPLES."""
LEAST_TRUSTED, EACH = 3, 2
"""Trusted changes needed for the factor (or one per weight in smaller networks), at most EACH per weight; with fewer,
predictions stay uncorrected."""
NOT_WORTH_MEASURING, DOMINATED = 1.5, 1.5
"""Predictions above the first (nats), or above a smaller candidate's by the second (factor), are not measured."""


def samples_for(multiply_adds: float) -> int:
    """Return the samples for one measurement of a network with `multiply_adds` for each sample."""
    return int(min(MOST_SAMPLES, max(LEAST_SAMPLES, MULTIPLY_ADDS / max(multiply_adds, 1.0))))


@dataclass
class PredictionCheck:
    """Measures changes in a copy of the network, one weight at a time; `known`: log ratios of predicted to measured KL of
    trusted changes, by the path of their weight."""

    network: nn.Module
    task: Task
    divergence: Outputs
    samples: int = LEAST_SAMPLES
    known: dict[str, list[float]] = field(default_factory=dict)
    sure: dict[str, list[tuple[float, Form]]] = field(default_factory=dict)
    """The largest trusted changes, at most EACH per weight, by rising predicted KL."""

    def __post_init__(self) -> None:
        assert self.task.calibration is not None
        self.duplicate = copy.deepcopy(self.network)
        self.weights = {weight.path: weight for weight in parameter_places(self.duplicate)}
        device = device_of(self.duplicate) or torch.device("cpu")
        batches = self.task.calibration.first(self.samples).batches(32)
        self.replay = Replay(self.duplicate, [to_device(inputs, device) for inputs, _ in batches], self.divergence)

    def needs_measurement(self, form: Form, predicted_kl: float) -> bool:
        """Return whether a prediction is uncertain."""
        return form.factors() is not None or predicted_kl > MEASURED_ABOVE

    def note(self, path: str, form: Form, predicted_kl: float) -> None:
        """Note a trusted change; the largest few of each weight will be measured."""
        some = dict(self.sure.get(path, []))
        if predicted_kl >= TRUSTED_BELOW and predicted_kl not in some:
            self.sure[path] = sorted({**some, predicted_kl: form}.items(), key=lambda one: one[0])[-EACH:]

    def learn(self, path: str, sensitivity: Sensitivity) -> None:
        """Measure the noted changes of a weight and store the ratios to their predictions."""
        for predicted_kl, form in self.sure.pop(path, []):
            found = self.measured(path, sensitivity, form)
            if found > 0:
                self.known.setdefault(path, []).append(math.log(predicted_kl / found))

    @property
    def factor(self) -> float | None:
        """Return the median ratio of predicted to measured KL; None with too few trusted changes."""
        found = [ratio for some in self.known.values() for ratio in some]
        many = sum(len(weight.shape) > 1 for weight in self.weights.values())
        return None if len(found) < min(LEAST_TRUSTED, max(1, many)) else math.exp(median(found))

    def corrected_prediction(
        self, path: str, predicted_kl: float, found: float | None = None, low_rank: bool = False
    ) -> float:
        """Return the nats of a change: measured (`found`) or predicted, corrected by the weight's trusted changes.

        With n ratios of a weight, their mean gets the weight n / (n + 1) and the network's factor the rest, as if ratios
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
        """Return the mean divergence of the outputs with one weight in a form, at the temperature."""
        weight = self.weights[path]
        original = weight.dense()
        given = sensitivity.given_back(original, form.dense().detach(), form)
        shift = sensitivity.shift(original, given)
        hooks = [] if shift is None else [weight.layer.register_forward_hook(shifting(shift))]
        attached, layers = weight.form, [layer for layer, _ in weight.places]
        try:
            weight.set_form(dense_form(given))
            rows = [
                self.divergence.divergence(batch.wanted, self.replay.answers(number, layers), TEMPERATURE)
                for number, batch in enumerate(self.replay.batches)
                if batch.wanted is not None
            ]
        finally:
            weight.set_form(attached)
            for hook in hooks:
                hook.remove()
        return float(torch.cat(rows).mean())
