"""Estimate: a positive number that is known only roughly, and what becomes of the uncertainty in products and sums."""

import math
from dataclasses import dataclass
from typing import Union

from cortado.errors import BadValue

Rough = Union["Estimate", float]


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval, `low` <= `value` <= `high`, all positive or all 0.

    >>> Estimate(2.0, 1.0, 4.0) * 10
    Estimate(value=20.0, low=10.0, high=40.0)

    Factors are taken as independent: on each side, the squares of their logarithmic distances add up. Raises BadValue for
    ends in another order, or below 0.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        exact = self.low == self.value == self.high
        if not (math.isfinite(self.value) and 0 <= self.low <= self.value <= self.high) or (
            self.low == 0 and not exact
        ):
            raise BadValue(
                f"cost: an estimate needs 0 < low <= value <= high, got {self.low:g}, {self.value:g}, {self.high:g}. "
                "Write 250, 250 +- 20 % or 200..300."
            )

    def __mul__(self, other: Rough) -> "Estimate":
        second = rough(other)
        return spread_around(self.value * second.value, self, second)

    __rmul__ = __mul__

    def __truediv__(self, other: Rough) -> "Estimate":
        second = rough(other)
        if not second.value:
            raise BadValue("cost: nothing can be divided by an estimate of 0.")
        turned = Estimate(1 / second.value, 1 / second.high, 1 / second.low)
        return self * turned

    def __add__(self, other: Rough) -> "Estimate":
        second = rough(other)
        value = self.value + second.value
        below = math.hypot(self.value - self.low, second.value - second.low)
        above = math.hypot(self.high - self.value, second.high - second.value)
        return Estimate(value, value - below, value + above)

    __radd__ = __add__

    @property
    def exact(self) -> bool:
        """Return whether there is no uncertainty."""
        return self.low == self.high


def rough(value: Rough) -> Estimate:
    """Return a number as an estimate without uncertainty."""
    return value if isinstance(value, Estimate) else Estimate(float(value), float(value), float(value))


def spread_around(value: float, one: Estimate, other: Estimate) -> Estimate:
    """Return a product with the spread of two factors."""
    if not value:
        return rough(0.0)
    below = math.hypot(math.log(one.value / one.low), math.log(other.value / other.low))
    above = math.hypot(math.log(one.high / one.value), math.log(other.high / other.value))
    return Estimate(value, value * math.exp(-below), value * math.exp(above))


def read_estimate(text: str | float, what: str) -> Estimate:
    """Return "250", "250 +- 20 %" or "200..300" as an estimate; a range has its middle by logarithm.

    Raises BadValue for anything else, with `what` ("power") in the sentence.
    """
    try:
        if not isinstance(text, str):
            return rough(text)
        if ".." in text:
            low, high = (float(part) for part in text.split(".."))
            return Estimate(math.sqrt(low * high), low, high)
        value, _, share = text.partition("+-")
        if not share:
            return rough(float(value))
        around = float(share.replace("%", "")) / 100
        return Estimate(float(value), float(value) * (1 - around), float(value) * (1 + around))
    except (ValueError, BadValue) as error:
        raise BadValue(f"cost: {what} must be positive: 250, 250 +- 20 % or 200..300; got {text!r}.") from error
