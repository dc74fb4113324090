"""Step search: the step at which the codes of a whole network have a number of bits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from cortado.methods.observed import MakeProblem, Problem
from cortado.methods.quantize.feedback import CodeLengths, rounded, row_steps, towards_zero

START, RANGE = 2e-4, 90.0
"""The first step that is tried, and how many octaves around it."""
CLOSE, MOST_TRIED = 1e-3, 60
"""How near to the wanted bits is near enough, as a share of them, and after how many steps tried the search ends."""
PROBED = 64
"""Rows of a weight that are rounded to learn its bits; rows are rounded independently of each other."""


def step_for(problems: Sequence[MakeProblem], wanted: float) -> float:
    """Return the step at which all codes together have about `wanted` bits.

    Bits are counted on some rows of each weight. The search rounds each weight on its own, which takes no time; one rounding
    with feedback, which makes codes a little larger, then says by how much these counts are short.
    """
    rows = [some_rows(make()) for make in problems]
    step = searched(lambda step: sum(share * bits_apart(one, step) for one, share in rows), wanted)
    apart = sum(share * bits_apart(one, step) for one, share in rows)
    together = sum(share * rounded(one, step).bits for one, share in rows)
    short = together / max(apart, 1e-9)
    return searched(lambda step: short * sum(share * bits_apart(one, step) for one, share in rows), wanted)


def some_rows(problem: Problem) -> tuple[Problem, float]:
    """Return the problem of some rows of a weight, and how many rows each of them stands for."""
    count = problem.weight.shape[1]
    some = problem.some_rows(max(1, count // PROBED))
    # A copy, because a view would keep the whole weight.
    free = None if some.free is None else some.free.clone()
    some = replace(some, weight=some.weight.clone(), free=free)
    return some, count / some.weight.shape[1]


def bits_apart(problem: Problem, step: float) -> float:
    """Return the bits of the codes of weights that are rounded without feedback."""
    levels = (problem.weight / (step * row_steps(problem))[..., None]).mT
    return CodeLengths.of(levels).bits(towards_zero(levels))


def searched(bits: Callable[[float], float], wanted: float) -> float:
    """Return the step with so many bits, which fall as it grows: bisection of its logarithm."""
    low, high = math.log2(START) - RANGE, math.log2(START) + RANGE
    at = math.log2(START)
    for number in range(MOST_TRIED):
        found = bits(2.0**at)
        if abs(found - wanted) <= CLOSE * wanted:
            break
        low, high = (at, high) if found > wanted else (low, at)
        # The start is near for most networks, and far for one that is sure of all its answers.
        reach = 2.0 ** (number // 2)
        at = min(max((low + high) / 2, at - reach), at + reach)
    return float(2.0**at)
