"""Measured plans: the networks of a few plans on validation data, as they are and shifted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cortado.file.artifact import encode
from cortado.network.compare.divergence import divergence_for, output_rows
from cortado.network.graph.trace import device_of
from cortado.planner.allocate.plan import Plan
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.data import Data
from cortado.task.measure import mean_score, metric_shares, scored_outputs
from cortado.task.outputs.outputs import Outputs, in_float64
from cortado.task.shifts import shifted_copies
from cortado.task.task import Task

BATCH = 100


@dataclass(frozen=True)
class Measured:
    """A measured plan: `kl` in nats and `score` on validation data, `size_bytes` of the whole file; `shifted`: its scores on
    shifted copies of them, by the shift."""

    plan: Plan
    kl: float
    score: float
    size_bytes: int
    shifted: dict[str, float] = field(default_factory=dict)


def measured_plans(
    plans: Sequence[Plan],
    made: Sequence[nn.Module],
    original: nn.Module,
    task: Task,
    data: Data,
    shifts: Sequence[str] = (),
) -> list[Measured]:
    """Measure the networks of several plans in one pass over the data, and their scores after each of some shifts."""
    kind, device = divergence_for(original, task), device_of(original)
    totals, each = [0.0] * len(made), [list[Any]() for _ in made]
    for inputs, targets in data.batches(BATCH) if made else ():
        given = to_device(inputs, device)
        wanted = in_float64(output_rows(original, given, kind))
        for number, network in enumerate(made):
            with eval_mode(network), eval_mode(original):
                outputs, found = scored_outputs(network, given, targets, task.metric, original)
            each[number].append(found)
            totals[number] += float(kind.divergence(wanted, in_float64(kind.rows(outputs))).sum())
    scores = [float(metric_shares(task.metric, some).double().mean()) * task.metric.scale for some in each]
    moved = shifted_scores(made, original, task, data, shifts)
    return [
        Measured(plan, total / len(data), score, len(encode(network, original)), shifted)
        for plan, total, score, network, shifted in zip(plans, totals, scores, made, moved, strict=True)
    ]


def shifted_scores(
    networks: Sequence[nn.Module], original: nn.Module, task: Task, data: Data, shifts: Sequence[str]
) -> list[dict[str, float]]:
    """Return the scores of each network on the data after each of some shifts."""
    found: list[dict[str, float]] = [{} for _ in networks]
    for name, copy in shifted_copies(data, task.seed, shifts, others=False) if networks else ():
        for scores, network in zip(found, networks, strict=True):
            scores[name] = mean_score(network, copy, task.metric, original)
    return found


def mean_divergences(original: nn.Module, networks: Sequence[nn.Module], data: Data, kind: Outputs) -> list[float]:
    """Return the mean divergence of each network's outputs from the original's, in nats."""
    totals, device = [0.0] * len(networks), device_of(original)
    for inputs, _ in data.batches(BATCH):
        given = to_device(inputs, device)
        wanted = in_float64(output_rows(original, given, kind))
        for number, network in enumerate(networks):
            totals[number] += float(kind.divergence(wanted, in_float64(output_rows(network, given, kind))).sum())
    return [total / len(data) for total in totals]
