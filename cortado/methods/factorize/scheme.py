"""Scheme: one way to write a weight as a chain of kernels - where it starts, what it builds, what it becomes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.factorize.ranks import Cut
from cortado.methods.factorize.refit import Build
from cortado.methods.factorize.targets import Target
from cortado.parts.forms.low_rank import LowRank

Start = Callable[[Tensor, Cut, int, torch.Generator], list[Tensor]]
"""Weight, its cut, the rank, randomness -> the factors that fit the filters."""

Closest = Callable[[Tensor, Tensor, Tensor, int], list[Tensor]]
"""(outputs, inputs) wanted, the metric of the inputs, how much each output counts, the rank -> the best factors."""


@dataclass(frozen=True)
class Scheme:
    """A chain of kernels.

    `suits(target)` says for which layers it is, `cut(target)` what ranks it offers. `build(factors)` gives the weight
    and is linear in each factor, `form(factors, weight)` holds them. `closest` finds them at once, where that is known.
    """

    suits: Callable[[Target], bool]
    cut: Callable[[Target], Cut]
    start: Start
    build: Build
    form: Callable[[list[Tensor], Tensor], LowRank]
    closest: Closest | None = None
