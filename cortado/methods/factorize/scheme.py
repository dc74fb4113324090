"""Scheme: a way to write a weight as a chain of kernels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.factorize.ranks import Cut
from cortado.methods.factorize.refit import Build
from cortado.methods.factorize.targets import Target
from cortado.parts.forms.low_rank import LowRank

Start = Callable[[Tensor, Cut, int, torch.Generator], list[Tensor]]
"""(weight, cut, rank, generator) -> the factors that fit the filters."""

Closest = Callable[[Tensor, Tensor, Tensor, int], list[Tensor]]
"""(target (outputs, inputs), metric of the inputs, weight of each output, rank) -> the best factors."""


@dataclass(frozen=True)
class Scheme:
    """A chain of kernels.

    `suits(target)` says whether a layer qualifies, `cut(target)` which ranks it has. `build(factors)` returns the
    weight and is linear in each factor, `form(factors, weight)` the form. `closest` is the closed form solution, if any.
    """

    suits: Callable[[Target], bool]
    cut: Callable[[Target], Cut]
    start: Start
    build: Build
    form: Callable[[list[Tensor], Tensor], LowRank]
    closest: Closest | None = None
