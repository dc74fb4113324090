"""Refit: fit the factors of a weight to the layer's outputs or its filters."""

from collections.abc import Callable

import torch
from torch import Tensor

Build = Callable[[list[Tensor]], Tensor]
"""Maps factors to the weight; linear in each of them."""


def refit(
    factors: list[Tensor],
    build: Build,
    wanted: Tensor,
    metric: Tensor | None,
    rows: Tensor | None,
    rounds: int,
    steps: int = 12,
) -> list[Tensor]:
    """Fit factors by alternating least squares, to outputs as in Jaderberg et al., 2014, or to filters.

    Minimise the mean of |rows (build(factors) - wanted) x|^2, with `metric` (inputs, inputs) the second moments of the
    inputs x and `rows` (outputs,) the weight of each output. Each factor in turn is solved by conjugate gradients.
    `wanted`: (outputs, inputs). Without metric and rows, fit the weights themselves.
    """
    factors = [factor.clone() for factor in factors]

    def lean(change: Tensor) -> Tensor:
        seen = change if metric is None else change @ metric
        return seen if rows is None else (rows**2)[:, None].to(wanted) * seen

    for _ in range(rounds):
        for place in range(len(factors)):
            factors[place] = best_factor(factors, place, build, wanted, lean, steps)
    return factors


def best_factor(
    factors: list[Tensor], place: int, build: Build, wanted: Tensor, lean: Callable[[Tensor], Tensor], steps: int
) -> Tensor:
    """Return the factor at `place` after some conjugate gradient steps on its normal equations."""
    found = factors[place].clone()
    root = found.clone().requires_grad_(True)
    with torch.enable_grad():
        made = build([*factors[:place], root, *factors[place + 1 :]]).flatten(1)

    def back(change: Tensor) -> Tensor:
        return torch.autograd.grad(made, root, change, retain_graph=True)[0]

    def ahead(step: Tensor) -> Tensor:
        with torch.no_grad():
            return build([*factors[:place], step, *factors[place + 1 :]]).flatten(1)

    rest = back(lean(wanted - made.detach()))
    way, size = rest.clone(), float((rest**2).sum())
    first = size
    for _ in range(steps):
        if size <= 1e-12 * first or size == 0.0:
            break
        pushed = back(lean(ahead(way)))
        curve = float((way * pushed).sum())
        if curve <= 0:
            break
        found += size / curve * way
        rest -= size / curve * pushed
        size, before = float((rest**2).sum()), size
        way = rest + size / before * way
    return found
