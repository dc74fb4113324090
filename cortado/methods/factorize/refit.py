"""Refit: move the factors of a weight until the layer's outputs, or else its filters, are as close as they can be."""

from collections.abc import Callable

import torch
from torch import Tensor

Build = Callable[[list[Tensor]], Tensor]
"""Factors -> the weight; linear in each of them."""


def refit(
    factors: list[Tensor],
    build: Build,
    wanted: Tensor,
    metric: Tensor | None,
    rows: Tensor | None,
    rounds: int,
    steps: int = 12,
) -> list[Tensor]:
    """Alternating least squares, on outputs as Jaderberg et al., 2014, fit to the data, or on filters.

    Least |rows (build(factors) - wanted) x|^2 in the mean, with `metric` (inputs, inputs) the second moments of what
    the layer sees and `rows` (outputs,) how much each output counts. In turn each factor moves to its best place
    by conjugate gradients. `wanted`: (outputs, inputs). Without metric and rows the fit is to the weights themselves.
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
    """The factor at `place` after some steps of conjugate gradients on its normal equations."""
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
