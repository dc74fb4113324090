"""VBMF: how many singular values of a matrix stand out from noise, in closed form."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

STRETCH = 2.5129
"""The root of the threshold's equation, over the square root of the matrix' aspect (Nakajima et al., 2013)."""


def vbmf_rank(matrix: Tensor) -> int:
    """Return the rank that empirical variational Bayesian matrix factorization keeps.  Nakajima et al., 2013.

    The noise variance minimises the free energy. Return 0 if nothing stands out.
    """
    short, long = sorted(matrix.shape)
    if short == 0 or not bool(matrix.any()):
        return 0
    squares = torch.linalg.svdvals(matrix.double()) ** 2
    aspect = short / long
    edge = STRETCH * math.sqrt(aspect)
    limit = (1 + edge) * (1 + aspect / edge)
    most = min(max(math.ceil(short / (1 + aspect)) - 1, 0), short - 1)
    rest = squares[most:]
    low = max(float(rest[0]) / (long * limit), float(rest.mean()) / long, 1e-30)
    high = max(float(squares.sum()) / (short * long), low)

    def energy(log_noise: float) -> float:
        return free_energy(squares / (long * math.exp(log_noise)), aspect, limit)

    noise = math.exp(minimum(energy, math.log(low), math.log(high)))
    return int((squares > long * noise * limit).sum())


def free_energy(x: Tensor, aspect: float, limit: float) -> float:
    """Return the free energy, up to a constant, of squared singular values over the noise of all entries."""
    out, under = x[x > limit], x[x <= limit].clamp(min=1e-300)
    middle = out - 1 - aspect
    tau = (middle + (middle**2 - 4 * aspect).clamp(min=0).sqrt()) / 2
    gained = (out - tau + torch.log((tau + 1) / out) + aspect * torch.log(tau / aspect + 1)).sum()
    return float((under - under.log()).sum() + gained)


def minimum(function: Callable[[float], float], low: float, high: float, grid: int = 64, steps: int = 40) -> float:
    """Return the minimum of a function of one number: the best of a grid, refined by golden section search."""
    places = [low + (high - low) * step / grid for step in range(grid + 1)]
    best = min(range(grid + 1), key=lambda at: function(places[at]))
    left, right = places[max(0, best - 1)], places[min(grid, best + 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(steps):
        one, two = right - golden * (right - left), left + golden * (right - left)
        left, right = (left, two) if function(one) <= function(two) else (one, right)
    return (left + right) / 2
