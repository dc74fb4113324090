"""Axes: the position of a number on a scale, in percent, and round tick values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cortado.quantities import size_text


@dataclass(frozen=True)
class Axis:
    """A linear or `log` scale from `low` to `high`, with its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Return the position in percent from low to high, clamped."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            return 100 * math.log(inside / self.low) / math.log(self.high / self.low)
        return 100 * (inside - self.low) / (self.high - self.low)

    def covers(self, value: float) -> bool:
        return self.low <= value <= self.high


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return round numbers that cover low .. high."""
    span = high - low or max(abs(high), 1.0) * 0.01
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= count)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def score_axis(scores: Sequence[float], count: int = 4) -> Axis:
    """Return a linear axis between round numbers below and above the scores."""
    ticks = nice_ticks(min(scores), max(scores), count)
    return Axis(ticks[0], ticks[-1], tuple(ticks))


def size_axis(sizes: Sequence[float], room: float = 0.06, count: int = 6) -> Axis:
    """Return a log axis, slightly wider than the sizes (bytes, at least one above 0)."""
    least, most = max(1.0, min(sizes)), max(1.0, *sizes)
    # One size alone still needs a scale around it.
    wider = max((most / least) ** room, 1.05)
    low, high = least / wider, most * wider
    return Axis(low, high, tuple(size_ticks(low, high, count)), log=True)


def size_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round sizes within low .. high: powers of ten, 1-2-5, or even steps on a short scale."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in decades for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= count:
            break
    if len(inside) < 2:
        return [tick for tick in nice_ticks(low, high, count) if low <= tick <= high]
    return inside[:: math.ceil(len(inside) / count)]


def score_labels(axis: Axis, unit: str) -> list[str]:
    """Return the ticks with as many decimals as they need to differ."""
    digits = max(0, min(4, -math.floor(math.log10(axis.ticks[1] - axis.ticks[0]) + 1e-9)))
    return [f"{tick:.{digits}f} {unit}".rstrip().replace("-", "−") for tick in axis.ticks]


def size_labels(axis: Axis) -> list[str]:
    return [size_text(tick) for tick in axis.ticks]
