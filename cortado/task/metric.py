"""Metric: how good a network's outputs are, sample by sample and as one value with an interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadTask, BadValue
from cortado.running.trees import concatenated, parts_by_name, pick, sample_count

INTERVALS = ("jackknife", "bootstrap")
MOST_GROUPS = 256
"""Most groups that are left out, and resamples that are drawn, for an interval."""


def first_floats(outputs: Any) -> Any:
    """Return the first float tensor of a tree of outputs, such as the logits; the outputs themselves without one."""
    tensors = [part for part in parts_by_name(outputs).values() if isinstance(part, Tensor)]
    return next((part for part in tensors if part.is_floating_point()), outputs)


def correct(outputs: Any, targets: Tensor) -> Tensor:
    """Return 1.0 for each sample whose largest output is its target, else 0.0.  Raises BadTask for labels without an output.

    `outputs` are logits (N, classes, ...) or a tree whose first float tensor they are; `targets` labels (N, ...).
    """
    logits = first_floats(outputs)
    check_labels(logits, targets)
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[1]:
        raise BadTask(
            f"task: labels must lie in 0..{logits.shape[1] - 1}, because the network has {logits.shape[1]} outputs, "
            f"got {int(targets.min())}..{int(targets.max())}. Correct the labels or the network."
        )
    return (logits.argmax(1) == targets).float()


def check_labels(logits: Tensor, targets: Any) -> None:
    """Raise BadTask unless the targets are whole numbers, one for each row of logits (or pixel)."""
    way_out = "Pass class numbers as whole numbers (labels.long()), or give the task its own metric: Metric(each=...)."
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        got = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise BadTask(f"task: accuracy needs class numbers as targets, got {got}. {way_out}")
    wanted = (logits.shape[0], *logits.shape[2:])
    if tuple(targets.shape) != wanted:
        raise BadTask(
            f"task: accuracy needs targets of shape {wanted} for outputs of shape {tuple(logits.shape)}, "
            f"got {tuple(targets.shape)}. {way_out}"
        )


@dataclass(frozen=True)
class Metric:
    """How good outputs are: `each(outputs, targets)` returns one number per sample; the score is their mean times `scale`.

    >>> each = lambda outputs, targets: (outputs - targets).abs().mean(1)
    >>> error = cortado.Metric("error", "mm", each, higher_is_better=False, scale=1.0)

    If the score is not a mean over samples, `each` returns a row per sample: (N, numbers), or a list of N objects, such as
    the detections in a picture. `whole(sums)`, (..., numbers) to (...), computes the score from the rows' sums, as for
    intersection over union; `value(rows)` from all rows, as for a rank correlation or average precision. If a row needs its
    neighbours, as from frame to frame, `join(found)` makes the rows of all samples, in order, from what `each` returned. `name`
    and `unit` appear in the report; `higher_is_better` gives the direction. `interval` says how the spread of `value` is found:
    by leaving samples out ("jackknife"; Tukey, 1958), or by drawing samples with replacement ("bootstrap"; Efron, 1979),
    for scores that hardly move when one sample is left out, such as a median. `without(rows, group, groups)` returns (groups,),
    the value without the samples of each group, where that is quicker than calling `value` for each.
    """

    name: str = "accuracy"
    unit: str = "%"
    each: Callable[[Any, Any], Any] = correct
    higher_is_better: bool = True
    scale: float = 100.0
    whole: Callable[[Tensor], Tensor] | None = None
    value: Callable[[Any], float] | None = None
    interval: str = "jackknife"
    join: Callable[[list[Any]], Tensor] | None = None
    without: Callable[[Any, Tensor, int], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.interval not in INTERVALS:
            raise BadValue(f"metric: interval must be one of {', '.join(INTERVALS)}, got {self.interval!r}.")
        if self.whole is not None and self.value is not None:
            raise BadValue(f"metric: {self.name} has both whole and value. Keep the one that computes the score.")

    @property
    def functions(self) -> tuple[Callable[..., Any] | None, ...]:
        """Return the functions that determine the score, for a fingerprint."""
        return self.each, self.whole, self.value, self.join, self.without

    def rows(self, outputs: Any, targets: Any) -> Any:
        """Return a row per sample: (N,), (N, numbers) or a list of N objects, on the CPU.  Raises BadTask for others."""
        found, samples = self.each(outputs, targets), sample_count(targets)
        if isinstance(found, Tensor):
            found = found.detach().cpu()
            found = found if found.dtype == torch.float64 else found.float()
        simple = self.whole is None and self.value is None
        fits = isinstance(found, Tensor) and found.dim() == (1 if simple else 2)
        fits = fits or (not (self.value is None and self.join is None) and isinstance(found, (list, Tensor)))
        if not fits or len(found) != samples:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"{type(found).__name__}"
            what = "number" if simple else "row of numbers" if self.value is None else "row"
            raise BadTask(
                f"task: the metric {self.name!r} must return one {what} per sample, got {got} for {samples} samples."
            )
        return found

    def joined(self, parts: Sequence[Any]) -> Any:
        """Return the rows of several batches as those of one."""
        found = concatenated(list(parts))
        return found if self.join is None else self.join(found)

    def score(self, rows: Any) -> float:
        """Return the score of all rows, in the metric's unit."""
        return float(self.shares(rows).double().mean()) * self.scale

    def shares(self, rows: Any) -> Tensor:
        """Return one number per sample, (N,), whose mean is the unscaled score; `rows` is what `rows` returned for all.

        Where the score is no mean these are pseudo-values, shifted so that their mean is the score: their spread is that of
        the score, and two networks can be compared in pairs.
        """
        if self.whole is None and self.value is None:
            return rows
        count = len(rows)
        if self.whole is not None:
            rows = rows.double()
            total = rows.sum(0)
            middle = self.whole(total).reshape(())
            return middle.reshape(1) if count == 1 else pseudo_values(middle, self.whole(total - rows))
        middle = torch.tensor(float(self.measured(rows)), dtype=torch.float64)
        if count == 1 or not bool(middle.isfinite()):
            return middle.expand(count).clone()
        return self.resampled(rows, middle) if self.interval == "bootstrap" else self.left_out(rows, middle)

    def measured(self, rows: Any) -> float:
        """Return the unscaled score of some rows."""
        assert self.value is not None
        return self.value(rows)

    def left_out(self, rows: Any, middle: Tensor) -> Tensor:
        """Return jackknife pseudo-values, of groups of samples where there are many.

        The values of G groups are repeated for the samples of each; their deviations grow by sqrt(N / G), so that the
        standard error of the mean of N values is that of the mean over the groups.
        """
        count = len(rows)
        groups = min(count, MOST_GROUPS)
        group = torch.arange(count) * groups // count
        if self.without is not None:
            without = self.without(rows, group, groups).double()
        else:
            others = [(group != number).nonzero().flatten() for number in range(groups)]
            without = torch.tensor([float(self.measured(pick(rows, one))) for one in others], dtype=torch.float64)
        found = pseudo_values(middle, without)
        return spread_over(group, found, middle)

    def resampled(self, rows: Any, middle: Tensor) -> Tensor:
        """Return numbers with the mean `middle` and the spread of bootstrap scores; the same samples for every network."""
        count = len(rows)
        generator, draws = torch.Generator().manual_seed(count), min(MOST_GROUPS, count)
        drawn = [torch.randint(count, (count,), generator=generator) for _ in range(draws)]
        values = torch.tensor([float(self.measured(pick(rows, index))) for index in drawn], dtype=torch.float64)
        found = middle + (values - values.mean()) * math.sqrt(draws)
        return spread_over(torch.arange(count) % draws, found, middle)


def pseudo_values(middle: Tensor, without: Tensor) -> Tensor:
    """Return jackknife pseudo-values with the mean `middle`, the score, given the score without each of the samples."""
    return middle + (len(without) - 1) * (without.mean() - without)


def spread_over(group: Tensor, found: Tensor, middle: Tensor) -> Tensor:
    """Return a number for each sample from one for each group, with the mean `middle` and the same standard error."""
    count, groups = len(group), len(found)
    if count == groups:
        return found
    deviations = (found - middle)[group]
    return middle + (deviations - deviations.mean()) * math.sqrt(count / groups)


@dataclass(frozen=True)
class SampleLosses:
    """A loss per sample, (N,): from the loss itself, or in batches of one if it returns a single number."""

    loss: Callable[[Any, Any], Tensor]

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        whole, count = self.loss(outputs, targets), sample_count(targets)
        if whole.dim() == 1 and len(whole) == count > 1:
            return whole
        places = [slice(at, at + 1) for at in range(count)]
        return torch.stack([self.loss(pick(outputs, one), pick(targets, one)).reshape(()) for one in places])


def metric_of(loss: Callable[[Any, Any], Tensor]) -> Metric:
    """Return the default metric: accuracy for classification losses, otherwise the loss itself, where less is better."""
    of_classes = (torch.nn.functional.cross_entropy, torch.nn.functional.nll_loss)
    if loss in of_classes or isinstance(loss, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss)):
        return Metric()
    return Metric(
        str(getattr(loss, "__name__", type(loss).__name__)), "", SampleLosses(loss), higher_is_better=False, scale=1.0
    )
