"""Deadline: the time limit of a search, and how much of it has passed."""

import math
import time
from dataclasses import dataclass, field

from cortado import quantities as units
from cortado.errors import BadValue


@dataclass
class Deadline:
    """A limit of `seconds` from `start`, infinite by default; `left_out` lists what was skipped for lack of time.

    `each`: seconds the network takes for one sample, 0 if unknown. `bound`: whether the clock has decided anything yet; what
    was made then would come out otherwise at another time.
    """

    seconds: float = math.inf
    start: float = field(default_factory=lambda: time.perf_counter())
    left_out: list[str] = field(default_factory=list)
    each: float = 0.0
    bound: bool = False

    @property
    def spent(self) -> float:
        return time.perf_counter() - self.start

    def over(self, share: float = 1.0, ahead: float = 0.0) -> bool:
        """Return whether this share of the time limit has passed, or will have with `ahead` more seconds."""
        over = self.spent + ahead >= share * self.seconds
        self.bound |= over
        return over

    def samples(self, most: int, share: float, least: int = 16) -> int:
        """Return how many samples a pass may use: `most`, or fewer for a slow network, to stay within this share of the time."""
        fit = share * self.seconds / self.each if self.each else math.inf
        self.bound |= fit < most
        return int(min(most, max(least, fit)))


def seconds_of(time_limit: str | float | None, where: str) -> float:
    """Return a time limit ("5 min", or a number of seconds) in seconds; None means no limit.

    Raises BadValue for a limit that is not positive.
    """
    if time_limit is None:
        return math.inf
    seconds = units.read_quantity(time_limit, "time") / 1000 if isinstance(time_limit, str) else float(time_limit)
    if not seconds > 0:
        raise BadValue(
            f"{where}: a time limit of {time_limit} allows nothing. Write, for example, --time-limit '5 min'."
        )
    return seconds
