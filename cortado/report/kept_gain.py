"""Kept gain: which share of what a teacher is better by a network has after learning from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.report.pages.words import interval, points, quantity, signed_text
from cortado.report.report import half_interval, paired_interval
from cortado.report.score_table import scores_of
from cortado.running.brought import accept
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.outputs import first_floats_of
from cortado.task.task import Task

TINY = 1e-30
"""The least mean probability, for logarithms."""
Networks = nn.Module | Sequence[nn.Module]


@dataclass(frozen=True)
class KeptGain:
    """The share of a teacher's gain over a network alone that a taught one has (1: all of it), with its 95 % interval.

    `alone`, `taught` and `teacher` are scores in the metric's unit, on the same `samples`.
    """

    share: float
    low: float
    high: float
    alone: float
    taught: float
    teacher: float
    samples: int
    metric_name: str
    metric_unit: str

    def text(self) -> str:
        """Return the share and the scores as a sentence."""
        scores = (quantity(one, self.metric_unit) for one in (self.alone, self.taught, self.teacher))
        named = ", ".join(f"{name} {one}" for name, one in zip(("alone", "taught", "teacher"), scores, strict=True))
        return (
            f"{self.share:.0%} of the teacher's gain is kept (95 % interval {self.low:.0%} to {self.high:.0%}). "
            f"{self.metric_name.capitalize()} on {self.samples:,} samples: {named}."
        )

    __str__ = text


def kept_gain(
    alone: Networks, taught: Networks, teacher: Networks, task: Task, *, data: Data | None = None
) -> KeptGain:
    """Return the share of the teacher's gain that a taught network keeps, on the task's test data, or on `data`.

    >>> share = cortado.kept_gain(alone, taught, teacher, task).share

    `alone` learned from labels, `taught` from the teacher; of several, such as those of other seeds, the mean score of each
    sample counts. Several teachers are an ensemble: the mean of their probabilities, or of their numbers. The interval is that
    of the ratio of two paired means, from the deviation of each sample (Cochran, 1977). Raises BadValue where the teacher's
    gain is within its error, so that a share of it means nothing; BadNetwork and BadTask as scoring does.
    """
    samples = task.test if data is None else data
    one, other, whole = (
        torch.stack([sample_scores(f"kept_gain, {name}", each, samples, task) for each in as_list(networks)]).mean(0)
        for name, networks in (("alone", alone), ("taught", taught), ("teacher", together(teacher, task)))
    )
    return kept_of_scores(one, other, whole, task.metric)


def kept_of_scores(alone: Tensor, taught: Tensor, teacher: Tensor, metric: Metric) -> KeptGain:
    """Return the kept gain from scores (N,) of the same samples, before the metric's scale; raises as `kept_gain` does."""
    gain = paired_interval(alone, teacher, metric.scale)
    wanted, learned = (teacher - alone).double(), (taught - alone).double()
    share = float(learned.mean() / wanted.mean()) if gain.difference else 0.0
    half = half_interval(learned - share * wanted)
    sure = (
        gain.low is not None and gain.high is not None and (gain.low > 0 if metric.higher_is_better else gain.high < 0)
    )
    if half is None or not sure:
        unit = f" {points(metric.unit)}".rstrip()
        raise BadValue(
            f"kept_gain: the teacher is not surely better than the network alone: its difference is "
            f"{signed_text(gain.difference)}{unit} ({interval(gain)}), on {gain.samples:,} samples, so a share of it means "
            "nothing. Score on more samples, or choose a better teacher."
        )
    error = half / abs(float(wanted.mean()))
    first, second, third = (float(one.double().mean()) * metric.scale for one in (alone, taught, teacher))
    return KeptGain(
        share, share - error, share + error, first, second, third, gain.samples, metric.name, metric.unit
    )  # fmt: skip


def as_list(networks: Networks) -> list[nn.Module]:
    """Return one network or several as a list.  Raises BadValue for none."""
    found = [networks] if isinstance(networks, nn.Module) or not isinstance(networks, Sequence) else list(networks)
    if not found:
        raise BadValue("kept_gain: there is no network, got an empty list. Pass one network, or several.")
    return found


def together(teacher: Networks, task: Task) -> nn.Module:
    """Return a teacher that answers as one: itself, or an ensemble of several."""
    found = as_list(teacher)
    return found[0] if len(found) == 1 else Ensemble(found, task.outputs.softens)


def sample_scores(where: str, network: Any, samples: Data, task: Task) -> Tensor:
    """Return a network's scores, one per sample (N,).  Raises BadNetwork for anything but a network."""
    accept(network, where)
    return scores_of(where, network, samples, task)


class Ensemble(nn.Module):
    """Several networks as one: the logarithms of their mean probabilities over axis 1, or the mean of their numbers."""

    def __init__(self, networks: Sequence[nn.Module], softens: bool) -> None:
        super().__init__()
        self.networks, self.softens = nn.ModuleList(networks), softens

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        each = [first_floats_of(one(*inputs, **named)) for one in self.networks]
        if not self.softens or each[0].dim() < 2:
            return torch.stack(each).mean(0)
        return torch.stack([one.softmax(1) for one in each]).mean(0).clamp(min=TINY).log()
