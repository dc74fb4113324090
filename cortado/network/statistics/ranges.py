"""Ranges: the observed ranges of a network's activations, and the best grids for them.

Two passes over the calibration data: extremes, then histograms between them. Memory does not grow with the data.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadTask
from cortado.network.graph.hooks import before_call
from cortado.network.graph.trace import call_with, device_of
from cortado.parts.activations.quantizer import INPUT, unrounded
from cortado.parts.forms.quantized import FAR_IN
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.data import Data

Place = tuple[str, str]
BINS = 2048
CANDIDATES = 80
"""Number of ranges to try between a fifth of the full range and all of it."""
RARE = 1e-3
"""The share of an activation's values that may be outliers."""


@dataclass
class ObservedRange:
    """The extremes of one activation, their averages over batches, and a histogram between the extremes.

    `below`: the next activation's factor on values below zero; their error is weighted by it. `floor`: values below it count
    as this value, since the next activation does not tell them apart.
    """

    low: float = np.inf
    high: float = -np.inf
    mean_low: float = 0.0
    mean_high: float = 0.0
    batches: int = 0
    counts: np.ndarray | None = None
    below: float = 1.0
    floor: float = -np.inf

    def stretch(self, values: Tensor) -> None:
        """Update the extremes with one batch.  Averages are moving, over some ten batches (Jacob et al., 2018)."""
        low, high = (float(end) for end in values.aminmax())
        # Keep NaN: with min and max the result would depend on the order.
        self.low, self.high = float(np.minimum(self.low, low)), float(np.maximum(self.high, high))
        self.batches += 1
        share = max(0.1, 1.0 / self.batches)
        self.mean_low += share * (low - self.mean_low)
        self.mean_high += share * (high - self.mean_high)

    def count(self, values: Tensor) -> None:
        """Add one batch to the histogram."""
        found = torch.histc(values.float(), BINS, self.low, self.high).double().cpu().numpy()
        self.counts = found if self.counts is None else self.counts + found

    @property
    def centres(self) -> np.ndarray:
        """Return the centers of the bins."""
        width = (self.high - self.low) / BINS
        return self.low + width * (np.arange(BINS) + 0.5)

    def share_above(self, value: float) -> float:
        """Return the share of values larger than `value`."""
        assert self.counts is not None
        return float(self.counts[self.centres > value].sum() / max(1.0, self.counts.sum()))

    def steps(self, step: float) -> float:
        """Return the number of steps between the observed ends, without one value in a thousand."""
        assert self.counts is not None
        share = np.cumsum(self.counts) / max(1.0, self.counts.sum())
        first, last = np.searchsorted(share, (RARE / 2, 1 - RARE / 2))
        return float(last - first) * (self.high - self.low) / BINS / step


Ends = tuple[float, float]


def full(observed: ObservedRange, bits: int) -> Ends:
    """Return the full observed range."""
    return observed.low, observed.high


def average(observed: ObservedRange, bits: int) -> Ends:
    """Return the moving averages of the batch extremes."""
    return observed.mean_low, observed.mean_high


def percentile(observed: ObservedRange, bits: int, left_out: float = 1e-4) -> Ends:
    """Return the range without one value in ten thousand at either end."""
    assert observed.counts is not None
    share = np.cumsum(observed.counts) / max(1.0, observed.counts.sum())
    centres = observed.centres
    low = centres[min(BINS - 1, int(np.searchsorted(share, left_out)))] if observed.low < 0 else observed.low
    return float(low), float(centres[min(BINS - 1, int(np.searchsorted(share, 1 - left_out)))])


def squared_error(observed: ObservedRange, bits: int) -> Ends:
    """Return the ends with the least squared error of rounding and clipping together."""
    centres, weight = observed.centres, observed.counts
    assert weight is not None
    weight, top = weight * np.where(centres < 0, observed.below**2, 1.0), 2**bits - 1

    def error(low: float, high: float) -> float:
        step = (high - low) / top
        rounded = np.clip(np.round((centres - low) / step), 0, top) * step + low
        return float((weight * (rounded - centres) ** 2).sum())

    low, high = least_error(observed, error)
    if observed.below == 1 or low >= 0:
        return low, high
    # The end with less weight is narrowed on its own.
    return min((low * share for share in np.linspace(1.0, 0.05, CANDIDATES)), key=lambda end: error(end, high)), high


def least_divergence(observed: ObservedRange, bits: int) -> Ends:
    """Return the ends with the least KL divergence between the histogram and its quantized version.

    Migacz, 8-bit inference with TensorRT, 2017: clipped values count in the last bin; within a step the mass is
    spread evenly over the nonempty bins.
    """
    centres, weight = observed.centres, observed.counts
    assert weight is not None
    levels = 2**bits
    # Zeros are exact on every grid, and frequent enough to dominate the rest.
    weight = np.where(np.abs(centres) <= (observed.high - observed.low) / BINS, 0.0, weight)

    def error(low: float, high: float) -> float:
        inside = (centres >= low) & (centres <= high)
        if not inside.any():
            return np.inf
        first, last = np.flatnonzero(inside)[[0, -1]]
        real = weight[first : last + 1].copy()
        rest = real.copy()
        real[0] += weight[:first].sum()
        real[-1] += weight[last + 1 :].sum()
        step = np.minimum((np.arange(len(rest)) * levels) // len(rest), levels - 1)
        mass = np.bincount(step, rest, levels)
        filled = np.bincount(step, rest > 0, levels)
        guess = np.where(rest > 0, (mass / np.maximum(filled, 1))[step], 0.0)
        seen = real > 0
        p, q = real[seen] / real.sum(), np.maximum(guess[seen], 1e-12) / max(guess.sum(), 1e-12)
        return float((p * np.log(p / q)).sum())

    return least_error(observed, error)


RANGES: dict[str, Callable[[ObservedRange, int], Ends]] = {
    "full": full, "average": average, "percentile": percentile, "mse": squared_error, "kl": least_divergence,
}  # fmt: skip
"""Methods to choose the ends of a grid, by name."""


def least_error(observed: ObservedRange, error: Callable[[float, float], float]) -> Ends:
    """Return the ends with the least error, narrowed proportionally; zero stays inside."""
    low, high = min(observed.low, 0.0), max(observed.high, 0.0)
    if high <= low:
        return low, high
    shares = [*np.linspace(1.0, 0.2, CANDIDATES), *FAR_IN]
    best = min(shares, key=lambda share: error(low * share, high * share))
    return low * float(best), high * float(best)


def measure_ranges(
    network: nn.Module,
    places: Sequence[Iterable[Place]],
    data: Data,
    images: int,
    batch: int,
    below: Sequence[float] = (),
    floors: Sequence[float] = (),
) -> list[ObservedRange]:
    """Return the observed range of each group of places, without quantizers.

    Runs `images` samples, `batch` at a time; `below` and `floors`: for each group the factor on values below zero, and the
    floor. Raises BadTask for activations that are not finite on the calibration data or whose range is too large,
    BadNetwork where nothing ever passes.
    """
    ends = zip(below or [1.0] * len(places), floors or [-np.inf] * len(places), strict=True)
    found = [ObservedRange(below=share, floor=floor) for share, floor in ends]

    def taken(values: Tensor, number: int) -> Tensor:
        floor = found[number].floor if found[number].below else max(0.0, found[number].floor)
        return values.clamp(min=floor) if floor > -np.inf else values

    with unrounded(network):
        samples = (network, places, data, images, batch)
        record_ranges(*samples, lambda number, values: found[number].stretch(taken(values, number)))
        for number, group in enumerate(places):
            check_range(found[number], next(iter(group), ("", "")))
        record_ranges(*samples, lambda number, values: found[number].count(taken(values, number)))
    return found


def check_range(observed: ObservedRange, place: Place) -> None:
    """Raise BadTask or BadNetwork for an activation that no grid suits."""
    where = f"the {place[1]} of {place[0] or 'the network'}"
    if not observed.batches:
        raise BadNetwork(f"quantize: nothing passed {where} on the calibration data. Exclude that layer with where.")
    if not np.isfinite([observed.low, observed.high]).all():
        raise BadTask(
            f"quantize: {where} has NaN or infinite values on the calibration data. Check the data, then the network."
        )
    if observed.high - observed.low > float(np.finfo(np.float32).max):
        raise BadTask(
            f"quantize: {where} ranges from {observed.low:.3g} to {observed.high:.3g} on the calibration data, more than float32 "
            "can represent. Scale the data down."
        )


def record_ranges(
    network: nn.Module,
    places: Sequence[Iterable[Place]],
    data: Data,
    images: int,
    batch: int,
    tell: Callable[[int, Tensor], None],
) -> None:
    """Run the calibration data once and record every activation at the places, group by group."""
    modules, hooks = dict(network.named_modules()), []

    def on_input(number: int) -> Callable[[nn.Module, Any], None]:
        return lambda layer, activation: tell(number, activation.detach()) if isinstance(activation, Tensor) else None

    def on_output(number: int) -> Callable[[nn.Module, Any, Any], None]:
        return lambda layer, given, made: tell(number, made.detach()) if isinstance(made, Tensor) else None

    for number, group in enumerate(places):
        for path, side in group:
            if side == INPUT:
                hooks.append(before_call(modules[path], on_input(number)))
            else:
                hooks.append(modules[path].register_forward_hook(on_output(number)))
    try:
        with eval_mode(network):
            for number, (inputs, _) in enumerate(data.batches(min(batch, images))):
                if number * batch >= images:
                    break
                call_with(network, to_device(inputs, device_of(network)))
    finally:
        for hook in hooks:
            hook.remove()
