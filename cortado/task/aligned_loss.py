"""Aligned loss: maps that are true up to a scale and a shift, such as disparity from stereo pictures without calibration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.outputs.outputs import first_floats_of

SMALLEST = 1e-6
SCALES = 4
"""Of the gradients: every pixel, every second one, and so on."""


@dataclass(frozen=True)
class UpToScaleAndShift:
    """The loss between maps after both are shifted by their median and scaled by their mean distance from it.

    >>> Source(web_stereo, UpToScaleAndShift(), weight=1.0)

    Outputs are (N, ...) or (N, 1, ...), targets (N, ...), inverse depths as a rule; NaN and `void` are unknown. The largest
    `trim` of a map's errors do not count, and `gradients` weighs how well edges agree at four scales, for (N, H, W).
    Ranftl, Lasinger, Hafner, Schindler, Koltun, 2020 (MiDaS), equations 5 to 7 and 11. Raises BadTask for shapes that differ.
    """

    trim: float = 0.2
    gradients: float = 0.5
    void: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 1 or self.gradients < 0:
            raise BadTask(
                f"task: UpToScaleAndShift needs a trim of 0 to below 1 and gradients of 0 or more, got {self.trim} and "
                f"{self.gradients}. Write UpToScaleAndShift(trim=0.2, gradients=0.5)."
            )

    def __call__(self, outputs: object, targets: Tensor) -> Tensor:
        """Return the mean over samples; those with fewer than two known places add 0."""
        found = as_maps(outputs, targets)
        unknown = ~targets.isfinite() if self.void is None else ~targets.isfinite() | (targets == self.void)
        known = ~unknown.flatten(1)
        usable = known.sum(1) > 1
        if not bool(usable.any()):
            return 0 * found.sum()
        found, wanted, known = found[usable], targets[usable].to(found), known[usable]
        error = (standardised(found, known) - standardised(wanted.nan_to_num(), known)).view_as(found)
        each = trimmed(error.flatten(1).abs(), known, self.trim)
        if self.gradients and error.dim() == 3:
            each = each + self.gradients * steepness(error, known.view_as(error))
        return each.sum() / len(targets)


def as_maps(outputs: object, targets: Tensor) -> Tensor:
    """Return outputs of the targets' shape.  Raises BadTask."""
    found = first_floats_of(outputs)
    if found.dim() == targets.dim() + 1 and found.shape[1] == 1:
        found = found[:, 0]
    if found.shape != targets.shape:
        raise BadTask(
            f"task: maps need one number for each place, got outputs of shape {tuple(found.shape)} and targets of shape "
            f"{tuple(targets.shape)}. Give the network one channel, at the size of the targets."
        )
    return found.float()


def standardised(values: Tensor, known: Tensor) -> Tensor:
    """Return maps as (N, places), less the median and over the mean distance from it, of known places."""
    flat = values.flatten(1)
    shown = flat.masked_fill(~known, torch.nan)
    middle = shown.nanmedian(1, keepdim=True).values
    spread = ((flat - middle).abs() * known).sum(1, keepdim=True) / known.sum(1, keepdim=True)
    return (flat - middle) / spread.clamp_min(SMALLEST)


def trimmed(errors: Tensor, known: Tensor, share: float) -> Tensor:
    """Return (N,): half the sum of the smallest 1 - `share` of known errors (N, places), over their number before."""
    counts = known.sum(1)
    ranks = errors.masked_fill(~known, torch.inf).argsort(1).argsort(1)
    kept = ranks < ((1 - share) * counts).ceil()[:, None]
    return torch.where(kept & known, errors, 0.0).sum(1) / (2 * counts)


def steepness(error: Tensor, known: Tensor) -> Tensor:
    """Return (N,): the mean absolute difference of neighbours in maps of errors (N, H, W), summed over scales."""
    total = error.new_zeros(len(error))
    for scale in range(SCALES):
        step = 2**scale
        some, there = error[:, ::step, ::step], known[:, ::step, ::step]
        for axis in (1, 2):
            pairs = there.narrow(axis, 1, there.shape[axis] - 1) & there.narrow(axis, 0, there.shape[axis] - 1)
            size = torch.where(pairs, some.diff(dim=axis).abs(), 0.0).flatten(1).sum(1)
            total = total + size / there.flatten(1).sum(1).clamp_min(1)
    return total
