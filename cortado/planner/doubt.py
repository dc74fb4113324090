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

from cortado.forms.form import Form
from cortado.forms.hold import plain_form
from cortado.forms.low_rank import LowRank
from cortado.network.divergence import Nats
from cortado.network.replay import Replay
from cortado.network.trace import device_of
from cortado.network.view import parameter_places
from cortado.planner.currency import Price, shifting
from cortado.task import Task, to_device

SURE, DOUBTED = 1e-5, 0.02
"""Nats: between them the curvature is believed and held against what is measured; above, it is not believed."""
TEMPERATURE, LEAST_SAMPLES, MOST_SAMPLES = 4.0, 16, 256
MULTIPLY_ADDS = 8e9
"""Of a change that is measured: as many samples as these pay for, within the two."""
LEAST_SURE, EACH = 3, 2
"""So many sure changes give the factor (of a network with fewer weights, one for each), at most EACH of a weight; with fewer,
predictions stay."""
HOPELESS, BEATEN = 1.5, 1.5
"""What is predicted to cost so many nats is not measured, nor what costs so many times more than something smaller."""


def samples_for(multiply_adds: float) -> int:
    """How many samples measure a change of a network that takes so many multiply-adds for each."""
    return int(min(MOST_SAMPLES, max(LEAST_SAMPLES, MULTIPLY_ADDS / max(multiply_adds, 1.0))))


@dataclass
class Doubt:
    """A twin of the network in which one weight at a time is changed; `known` are logarithms of what changes of which the
    curvature is sure cost by prediction, over what was measured, by the path of their weight."""

    network: nn.Module
    task: Task
    nats: Nats
    samples: int = LEAST_SAMPLES
    known: dict[str, list[float]] = field(default_factory=dict)
    sure: dict[str, list[tuple[float, Form]]] = field(default_factory=dict)
    """The largest changes that are believed, EACH of a weight, rising."""

    def __post_init__(self) -> None:
        assert self.task.calibration is not None
        self.twin = copy.deepcopy(self.network)
        self.weights = {weight.path: weight for weight in parameter_places(self.twin)}
        device = device_of(self.twin) or torch.device("cpu")
        batches = self.task.calibration.first(self.samples).batches(32)
        self.replay = Replay(self.twin, [to_device(inputs, device) for inputs, _ in batches])

    def doubts(self, form: Form, damage: float) -> bool:
        """Whether a prediction is not believed."""
        return isinstance(form, LowRank) or damage > DOUBTED

    def note(self, path: str, form: Form, damage: float) -> None:
        """A change that is believed: the largest few of each weight are to be measured."""
        some = dict(self.sure.get(path, []))
        if damage >= SURE and damage not in some:
            self.sure[path] = sorted({**some, damage: form}.items(), key=lambda one: one[0])[-EACH:]

    def learn(self, path: str, price: Price) -> None:
        """Hold what is believed of a weight against what is measured."""
        for damage, form in self.sure.pop(path, []):
            found = self.measured(path, price, form)
            if found > 0:
                self.known.setdefault(path, []).append(math.log(damage / found))

    @property
    def factor(self) -> float | None:
        """Nats for a unit of what is measured, the median; None where too little is sure."""
        found = [ratio for some in self.known.values() for ratio in some]
        many = sum(len(weight.shape) > 1 for weight in self.weights.values())
        return None if len(found) < min(LEAST_SURE, max(1, many)) else math.exp(median(found))

    def believed(self, path: str, damage: float, found: float | None = None, low_rank: bool = False) -> float:
        """Nats of a change: what was `found`, or else what is predicted, corrected as the weight's sure changes were.

        Of n ratios of a weight the share n / (n + 1) of their mean is believed, the rest is the network's: as if ratios
        varied as much within a weight as between weights.
        """
        factor, own = self.factor, self.known.get(path, [])
        if factor is None:
            return damage
        if found is not None:
            return found * factor
        if low_rank or not own:
            return damage
        return damage * math.exp((math.log(factor) - sum(own) / len(own)) * len(own) / (len(own) + 1))

    def measured(self, path: str, price: Price, form: Form) -> float:
        """The mean divergence of all answers with one weight held in a form, softened by the temperature."""
        weight = self.weights[path]
        cold = TEMPERATURE if self.nats.variance is None else 1.0
        plain = weight.dense()
        given = price.given_back(plain, form.dense().detach(), form)
        shift = price.shift(plain, given)
        hooks = [] if shift is None else [weight.layer.register_forward_hook(shifting(shift))]
        held, layers = weight.form, [layer for layer, _ in weight.places]
        try:
            weight.put(plain_form(given))
            rows = [
                self.nats.apart(batch.wanted / cold, self.replay.answers(number, layers) / cold)
                for number, batch in enumerate(self.replay.batches)
                if batch.wanted is not None
            ]
        finally:
            weight.put(held)
            for hook in hooks:
                hook.remove()
        return float(torch.cat(rows).mean())
