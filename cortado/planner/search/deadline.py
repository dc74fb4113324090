"""Deadline: the time that a search or a forecast may take, and how much of it is over."""

import math
import time
from dataclasses import dataclass, field

from cortado import quantities as units
from cortado.errors import BadValue


@dataclass
class Deadline:
    """A limit of `seconds` that runs from `start`, without end by default; `left_out` says what there was no time for.

    `each`: seconds that the network takes for one sample, 0 where it is not known.
    """

    seconds: float = math.inf
    start: float = field(default_factory=time.perf_counter)
    left_out: list[str] = field(default_factory=list)
    each: float = 0.0

    @property
    def spent(self) -> float:
        return time.perf_counter() - self.start

    def over(self, share: float = 1.0) -> bool:
        """Return whether this share of the time has passed."""
        return self.spent >= share * self.seconds

    def samples(self, most: int, share: float, least: int = 16) -> int:
        """Return how many samples a pass may look at: `most`, or of a slow network as many as take this share of the time."""
        fit = share * self.seconds / self.each if self.each else math.inf
        return int(min(most, max(least, fit)))


def seconds_of(time_limit: str | float | None, where: str) -> float:
    """Return the seconds of a time limit such as "5 min"; a number is seconds already, and None means no limit.

    Raises BadValue for a limit that allows nothing.
    """
    if time_limit is None:
        return math.inf
    seconds = units.read_quantity(time_limit, "time") / 1000 if isinstance(time_limit, str) else float(time_limit)
    if not seconds > 0:
        raise BadValue(f"{where}: a time limit of {time_limit} allows nothing. Give it some: --time-limit '5 min'.")
    return seconds
