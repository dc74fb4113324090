"""Measure: score a network on data, sample by sample."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadTask, CortadoError, describe, in_own_code
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import sample_count, tensors_in, to_device
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.outputs import float_parts
from cortado.task.task import Task

STATED_MARGIN = 0.01
"""Relative tolerance of a stated score, besides what chance explains."""


CALIBRATION_READ = 512
"""Items of a Dataset that are checked; data in memory are checked completely."""


def check_calibration(task: Task) -> None:
    """Raise BadTask for calibration inputs with NaN, before activation statistics are computed on them."""
    data, at = task.calibration, 0
    assert data is not None
    for inputs, _ in (data if data.items is None else data.first(CALIBRATION_READ)).batches(256):
        for part in (part for part in tensors_in(inputs) if part.is_floating_point()):
            bad = torch.isnan(part).flatten(1).any(1) if part.dim() > 1 else torch.isnan(part)
            if bool(bad.any()):
                raise BadTask(
                    f"task: sample {at + int(bad.nonzero()[0])} of the calibration data contains NaN, as do {int(bad.sum())} "
                    f"of these {len(bad)} samples. Remove them, or fix what prepares them."
                )
        at += sample_count(inputs)


def scores(
    network: nn.Module, data: Data, score: Metric, batch: int = 256, original: nn.Module | None = None
) -> Tensor:
    """Return one score per sample (N,), in eval mode, without gradients; restore modes afterwards.

    Raises BadNetwork if the network cannot take the data or returns NaN or infinite values that `original` does not;
    BadTask if the metric does not fit.
    """
    device = own_device(network)
    found = []
    with eval_mode(network):
        for inputs, targets in data.batches(batch):
            found.append(scored_outputs(network, to_device(inputs, device), targets, score, original)[1])
    return metric_shares(score, found)


def scored_outputs(
    network: nn.Module, inputs: Any, targets: Any, score: Metric, original: nn.Module | None = None
) -> tuple[Any, Any]:
    """Return a network's outputs for a batch on its device, and the metric's rows; raises as `scores` does."""
    outputs = run(network, inputs, original)
    return outputs, scored(score, outputs, to_device(targets, own_device(network)))


def run(network: nn.Module, inputs: Any, original: nn.Module | None = None) -> Any:
    """Return a network's outputs.  Infinite ones, as from a mask, are accepted where `original`, in eval mode, has the same.

    Without `original`, each sample needs a finite output. Raises BadNetwork.
    """
    try:
        outputs = call(network, inputs)
    except CortadoError:
        raise
    except Exception as error:
        shapes = [tuple(part.shape) for part in tensors_in(inputs)]
        raise BadNetwork(
            f"network: it cannot take inputs of shape {shapes}: {describe(error)}. Check the task's data and prepare."
        ) from error
    parts = float_parts(outputs)
    if not all(bool(torch.isfinite(part).all()) for part in parts.values()):
        wanted = {} if original is None else float_parts(call(original, inputs))
        for name, part in parts.items():
            check_infinite(part, wanted.get(name))
    return outputs


def check_infinite(outputs: Tensor, wanted: Tensor | None) -> None:
    """Raise BadNetwork unless all non-finite outputs are infinite like the wanted ones."""
    infinite = outputs.isinf()
    lost = infinite.reshape(outputs.shape[0] if outputs.dim() else 1, -1).all(1)
    if bool(outputs.isnan().any()) or (wanted is None and bool(lost.any())):
        raise BadNetwork(
            "network: its outputs contain NaN or infinite values. Check the weights and the inputs' scaling."
        )
    if wanted is not None and not torch.equal(outputs[infinite], wanted[infinite]):
        raise BadNetwork(
            "network: its outputs are infinite where those of the original network are not. "
            "Look for weights that diverged: lower lr, or compress less."
        )


def scored(score: Metric, outputs: Any, targets: Any) -> Any:
    """Return the metric's rows for the outputs of a batch.  Raises BadTask where it does not fit them."""
    given = f"on outputs of {type(outputs).__name__} and targets of {tree_text(targets)}"
    where = f"task: the metric {score.name!r}, {given},"
    with in_own_code(BadTask, where, "Give the task its own metric: Metric(each=...)."):
        return score.rows(outputs, targets)


def metric_shares(score: Metric, rows: list[Any]) -> Tensor:
    """Return one number per sample from the rows of all batches.  Raises BadTask where the metric fails on them."""
    where = f"task: the metric {score.name!r}, on the rows of all samples,"
    with in_own_code(BadTask, where, "Give the task its own metric: Metric(each=..., value=...)."):
        return score.shares(score.joined(rows))


def tree_text(value: Any) -> str:
    """Return the shape of a tensor, or the class of another tree, for a message."""
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def mean_score(network: nn.Module, data: Data, score: Metric, original: nn.Module | None = None) -> float:
    """Return the score of a network on data, in the metric's unit; `original` as in `scores`."""
    return float(scores(network, data, score, original=original).double().mean()) * score.scale


def reference_score(network: nn.Module, task: Task) -> float:
    """Return the original network's score on the validation data.  Raises BadTask if it is not finite."""
    found = mean_score(network, task.validation, task.metric)
    if not math.isfinite(found):
        raise BadTask(
            f"task: the metric {task.metric.name!r} of the original network is {found} on the {len(task.validation)} "
            "validation samples, so nothing can be compared with it. Correct the metric, or leave out samples without a value."
        )
    return found


def check_stated(network: nn.Module, task: Task, stated: float, tolerance: float | None = None) -> float:
    """Check a trained network's score on the validation data against a stated one; return it in the metric's unit.

    >>> score = cortado.check_stated(net, task, stated)

    Call it before compressing: it finds data that are prepared differently than in training. The default `tolerance` is
    3 standard errors of the difference of two means (validation samples, measured here, and test samples, which are not
    touched but where a stated score usually comes from), plus 1 % of the stated score for another split and rounding.
    The standard deviation of one sample's score is measured; for scores of 0 and 1 (accuracy) it is at least that of the
    stated share. Raises BadTask if the two differ by more.
    """
    found = scores(network, task.validation, task.metric).double() * task.metric.scale
    score, counts = float(found.mean()), (len(found), len(task.test))
    if tolerance is None:
        tolerance = 3 * deviation(found, stated, task.metric.scale) * math.sqrt(1 / counts[0] + 1 / counts[1])
        tolerance += STATED_MARGIN * abs(stated)
    if not abs(score - stated) <= tolerance:
        unit, better = f" {task.metric.unit}".rstrip(), (score > stated) == task.metric.higher_is_better
        hint = (
            " A better score than stated can mean that the network was trained on the validation data."
            if better
            else ""
        )
        raise BadTask(
            f"score: the stated {task.metric.name} of the original network is {stated:g}{unit}, "
            f"but it reaches {score:.2f}{unit} on "
            f"the {counts[0]} validation samples; the tolerance is {tolerance:.2f} with {counts[0]} and {counts[1]} samples. "
            "Usually the data are prepared differently than in training: check normalisation, channel order, "
            f"label order and eval mode. If all is right, correct the stated score or leave it out.{hint}"
        )
    return score


def deviation(found: Tensor, stated: float, scale: float) -> float:
    """Return the standard deviation of one sample's score; for zeros and ones at least that of the stated share."""
    spread = float(found.std()) if len(found) > 1 else abs(stated)
    if bool(((found == 0) | (found == scale)).all()):
        share = min(1.0, max(0.0, stated / scale))
        spread = max(spread, math.sqrt(share * (1 - share)) * abs(scale))
    return spread
