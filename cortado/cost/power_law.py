"""Power law: loss against size, data or compute, fitted to a few runs; and the size that an amount of computing trains best."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cortado.errors import BadValue

FEWEST, FEWEST_OF_TWO = 4, 6
DRAWS = 200
FLOORS = 200
AROUND = 50
"""Runs that are drawn around each resampled law."""
OPERATIONS = 6.0
"""Operations of a training for each parameter and token."""


@dataclass(frozen=True)
class PowerLaw:
    """loss = floor + factor x size ** -exponent, with the ends of 95 % intervals of the exponent and the floor."""

    floor: float
    factor: float
    exponent: float
    exponent_interval: tuple[float, float]
    floor_interval: tuple[float, float]
    error: float
    """Root mean square of the differences in the logarithm of the loss."""
    draws: tuple[tuple[float, float, float], ...] = field(default=(), repr=False, compare=False)
    """Floor, factor and exponent from resampled runs."""
    runs: int = 0

    def loss(self, size: float) -> float:
        """Return the loss of a run of this size."""
        return float(self.floor + self.factor * size**-self.exponent)

    def interval(self, size: float, seed: int = 0) -> tuple[float, float]:
        """Return the ends of the 95 % interval of one more run of this size.

        It has the uncertainty of the law, from the resampled runs, and the spread of runs around it. Raises BadValue for a
        size that is not positive.
        """
        (size,) = positive([size], "size", 1)
        # Three figures are fitted, so that runs lie nearer to the law than a new one will.
        spread = self.error * (self.runs / max(1, self.runs - 3)) ** 0.5
        noise = np.random.default_rng(seed).standard_normal((len(self.draws), AROUND)) * spread
        found = np.array([floor + factor * size**-exponent for floor, factor, exponent in self.draws])
        low, high = np.quantile(found[:, None] * np.exp(noise), (0.025, 0.975))
        return float(low), float(high)


def fit_power_law(sizes: Sequence[float], losses: Sequence[float], seed: int = 0) -> PowerLaw:
    """Return the law closest to some runs, by least squares in the logarithm of the loss above its floor.

    Intervals come from resampling the runs (Efron, 1979). Raises BadValue for fewer than four runs, for figures that are
    not positive, and where the loss does not fall with size.
    """
    x, y = positive(sizes, "size", FEWEST), positive(losses, "loss", FEWEST)
    check_equal_counts(x, y)
    floor, factor, exponent, error = fitted(x, y)
    if exponent <= 0:
        raise BadValue(
            "cost: the loss does not fall with size in these runs, so that no power law fits. Check the columns."
        )
    generator, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        chosen = generator.integers(len(x), size=len(x))
        if len(np.unique(x[chosen])) >= FEWEST - 1:
            found.append(fitted(x[chosen], y[chosen])[:3])
    draws = np.array(found) if found else np.array([[floor, factor, exponent]])
    ends = np.quantile(draws, (0.025, 0.975), axis=0)
    kept = tuple((float(one[0]), float(one[1]), float(one[2])) for one in draws)
    return PowerLaw(
        floor, factor, exponent, (ends[0, 2], ends[1, 2]), (ends[0, 0], ends[1, 0]), error, kept, len(x)
    )  # fmt: skip


def fitted(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Return floor, factor, exponent and error of the closest law."""
    best = (np.inf, 0.0, 0.0, 0.0)
    for floor in np.append(0.0, y.min() * (1 - np.geomspace(1e-3, 1, FLOORS))):
        slope, start = np.polyfit(np.log(x), np.log(y - floor), 1)
        modelled = floor + np.exp(start + slope * np.log(x))
        error = float(np.sqrt(np.mean(np.log(modelled / y) ** 2)))
        if error < best[0] - 1e-12:
            best = (error, float(floor), float(np.exp(start)), float(-slope))
    return best[1], best[2], best[3], best[0]


@dataclass(frozen=True)
class ComputeLaw:
    """loss = floor + a x parameters ** -alpha + b x tokens ** -beta.  Hoffmann et al., 2022."""

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    error: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Return the loss of a network of this size that has seen so many tokens or samples."""
        return float(self.floor + self.a * parameters**-self.alpha + self.b * tokens**-self.beta)

    def best(self, operations: float) -> tuple[float, float]:
        """Return the parameters and tokens that reach the lowest loss with 6 x parameters x tokens = `operations`."""
        product, both = operations / OPERATIONS, self.alpha + self.beta
        share = (self.alpha * self.a / (self.beta * self.b)) ** (1 / both)
        parameters = share * product ** (self.beta / both)
        return parameters, product / parameters


def fit_compute_law(parameters: Sequence[float], tokens: Sequence[float], losses: Sequence[float]) -> ComputeLaw:
    """Return the closest law in parameters and tokens.  Raises BadValue for fewer than six runs, or figures below 0.

    For every pair of exponents on a grid, the others follow by least squares, none below 0; the grid then narrows.
    """
    n, d, y = (positive(one, what, FEWEST_OF_TWO) for one, what in
               ((parameters, "parameters"), (tokens, "tokens"), (losses, "loss")))  # fmt: skip
    check_equal_counts(n, d, y)
    if min(len(np.unique(n)), len(np.unique(d))) < 2:
        raise BadValue("cost: a law in size and data needs runs of several sizes and of several amounts of data.")
    middle, width, best = np.array([0.5, 0.5]), 0.5, None
    for _ in range(12):
        grid = [np.linspace(max(0.01, one - width), one + width, 9) for one in middle]
        tried = [(*closest(n, d, y, alpha, beta), alpha, beta) for alpha in grid[0] for beta in grid[1]]
        best = min([*tried, *([best] if best else [])], key=lambda one: one[0])
        middle, width = np.array(best[2:]), width / 2
    assert best is not None
    error, (floor, a, b), alpha, beta = best
    if not a or not b:
        raise BadValue("cost: the loss does not fall with size and with data in these runs. Check the columns.")
    return ComputeLaw(float(floor), float(a), float(alpha), float(b), float(beta), float(error))


def closest(n: np.ndarray, d: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> tuple[float, np.ndarray]:
    """Return the error, and floor, a and b, for given exponents: relative least squares without negative terms."""
    terms = np.stack([np.ones_like(y), n**-alpha, d**-beta], 1) / y[:, None]
    best = (np.inf, np.zeros(3))
    for mask in (0b111, 0b110, 0b011, 0b101):
        used = [place for place in range(3) if mask >> (2 - place) & 1]
        found = np.linalg.lstsq(terms[:, used], np.ones_like(y), rcond=None)[0]
        error = float(np.sqrt(np.mean((terms[:, used] @ found - 1) ** 2)))
        if (found >= 0).all() and error < best[0]:
            whole = np.zeros(3)
            whole[used] = found
            best = (error, whole)
    return best


def positive(values: Sequence[float], what: str, fewest: int) -> np.ndarray:
    """Return figures as an array.  Raises BadValue for too few, or for one that is not positive."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) < fewest:
        raise BadValue(
            f"cost: a fit needs at least {fewest} runs, got {len(found)}. Train more of them, of other sizes."
        )
    if not np.isfinite(found).all() or (found <= 0).any():
        raise BadValue(f"cost: each {what} must be a number above 0.")
    return found


def check_equal_counts(*columns: np.ndarray) -> None:
    """Raise BadValue for columns of different lengths."""
    if len({len(column) for column in columns}) > 1:
        raise BadValue("cost: the columns have different numbers of runs.")
