"""prune/second_order: remove weights input by input, and let the remaining inputs compensate for each one."""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from cortado.errors import BadValue
from cortado.methods.error_feedback import with_error_feedback
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.methods.observed import MATRICES, MakeProblem, Matrix, Problem, left_alone, observed, problems_of
from cortado.methods.prune.ranking import highest, some_go, survivors_of
from cortado.network.statistics.one_pass import Statistics
from cortado.network.view import View
from cortado.parts.forms.dense import Dense
from cortado.task.task import Task

BLOCK = 128
"""Inputs whose weights are chosen together and whose errors are passed on together, as in SparseGPT."""

LEAST = 0.1
"""Of its share, what a layer keeps where it competes with others: one that seems to cost nothing stays alive."""


@dataclass(frozen=True)
class PruneSecondOrder(Method):
    """Optimal Brain Surgeon for whole layers: SparseGPT, Frantar and Alistarh, 2023; Hassibi and Stork, 1993.

    Input by input, the weights that cost least, by w^2 over the inverse second moment of their input, become zero; the
    inverse moments spread each error over the weights of the same output still to come. `keep` is the share of weights kept:
    layers and outputs compete by what their errors cost the network's answers, or without `across` each layer keeps that
    share, as in the paper. `pattern` 2:4 keeps two of each four neighbouring inputs instead, in the order of
    `weight.flatten(1)`. Weights pruned before stay zero and count. One pass over the samples, no labels, no training.
    """

    lossy = True
    leaves = (Leaves.ZEROS, Leaves.FLOATS)

    keep: float = knob(0.5, low=0.0, high=1.0, help="share of weights kept")
    pattern: str = knob("", help="instead of keep: so many of so many neighbouring inputs, such as 2:4")
    across: bool = knob(True, help="rank across layers, so that some lose more than others; not with a pattern")
    damp: float = knob(0.01, low=1e-6, high=1.0, help="added to the second moments, as a share of their mean")
    images: int = knob(128, low=1, help="calibration samples for second moments")
    slopes: int = knob(64, low=1, help="how many of them also weigh the outputs, which needs gradients")
    rows: int = knob(1024, low=1, help="places of each sample that are read; a token or a position of a kernel is one")
    precision: str = knob("float32", one_of=("float32", "bfloat16"), help="of the network while it is observed")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern:
            read_pattern(self.pattern)

    def apply(self, view: View, task: Task) -> None:
        self.cut(view, task, observed(self, view, task))

    def cut(self, view: View, task: Task, seen: Statistics) -> None:
        """Prune the chosen weights by what was observed."""
        problems = problems_of(self, view, task, seen)
        counts = self.counts([make for _, make in problems])
        lost = sum(self.prune(one, make(), count) for (one, make), count in zip(problems, counts, strict=True))
        view.notes += [f"predicted KL {lost:.3g} nats.", *left_alone(self, view, [one for one, _ in problems])]

    def drops(self, view: View, task: Task) -> bool:
        """Return whether fewer weights stay than are there."""
        there = [survivors_of(one.weight) for one in MATRICES.found(self, view, task)]
        if not self.pattern:
            return some_go(there, self.keep, self.across)
        count, of = read_pattern(self.pattern)
        return any(bool((in_groups_of(mask.flatten(1).float(), of).sum(-1) > count).any()) for mask in there)

    def counts(self, problems: list[MakeProblem]) -> list[list[int] | None]:
        """Return for each matrix how many weights of each block of inputs stay; None with a pattern."""
        if self.pattern:
            return [None for _ in problems]
        costs = [self.costs(make()) for make in problems]
        sizes = [one.numel() for one in costs]
        if self.across:
            ranked = [
                with_least(one.flatten(), math.ceil(LEAST * self.keep * size))
                for one, size in zip(costs, sizes, strict=True)
            ]
            kept = highest(torch.cat(ranked), round(self.keep * sum(sizes))).split(sizes)
        else:
            kept = tuple(highest(one, round(self.keep * size)) for one, size in zip(costs, sizes, strict=True))
        return [
            [int(part.sum()) for part in mask.view_as(one).split(BLOCK, 1)]
            for one, mask in zip(costs, kept, strict=True)
        ]

    def costs(self, problem: Problem, at: slice = slice(None), now: Tensor | None = None) -> Tensor:
        """Return what it costs to remove each weight of these inputs, (groups, inputs, outputs); -1 where it is gone already.

        `now`: their values at present, if others have been removed before.
        """
        left = problem.weight[..., at].mT.float() if now is None else now
        cost = (left / problem.pivots[:, at, None]).square()
        if self.across:
            cost = cost * problem.outputs[:, None]
        return cost if problem.free is None else torch.where(problem.free[..., at].mT, cost, -1.0)

    def prune(self, matrix: Matrix, problem: Problem, counts: list[int] | None) -> float:
        """Give a matrix its zeros and what makes up for them; return the predicted KL in nats."""
        left = problem.weight.float().mT.contiguous()
        kept = torch.zeros_like(left, dtype=torch.bool)
        count, of = read_pattern(self.pattern) if counts is None else (0, BLOCK)

        def final(at: int, now: Tensor) -> Tensor:
            if at % of == 0:
                part = slice(at, at + of)
                cost = self.costs(problem, part, left[:, part])
                kept[:, part] = (
                    highest_of_inputs(cost, count) if counts is None else highest(cost, counts[at // of]) & (cost >= 0)
                )
            return now * kept[:, at]

        loss = with_error_feedback(left, problem, final, BLOCK - BLOCK % of)
        weight = matrix.weight
        if not bool(kept.any()):
            raise BadValue(
                f"{self.name()}: nothing of {weight.title} would be left. Raise keep, or exclude it with where."
            )
        place = weight.dense()
        weight.set_form(Dense(left.mT.reshape(weight.shape).to(place)))
        weight.select(kept.mT.reshape(weight.shape).to(place.device))
        return float((problem.outputs * loss).double().sum()) / 2


def with_least(costs: Tensor, count: int) -> Tensor:
    """Return costs of which the `count` highest are infinite: they are kept whatever others cost."""
    return costs.masked_fill(highest(costs, count) & (costs >= 0), torch.inf)


def read_pattern(text: str) -> tuple[int, int]:
    """Return how many of how many neighbours stay: "2:4" is (2, 4).  Raises BadValue for another text."""
    found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)
    if found is None or not int(found[1]) < int(found[2]) <= BLOCK:
        raise BadValue(
            f"prune/second_order: pattern must be two numbers up to {BLOCK}, the first one smaller, got {text!r}. Write "
            "pattern=2:4 to keep two of each four neighbouring inputs."
        )
    return int(found[1]), int(found[2])


def in_groups_of(values: Tensor, of: int) -> Tensor:
    """Return the last axis in groups of so many, (..., groups, of), filled up with zeros."""
    return pad(values, (0, -values.shape[-1] % of)).unflatten(-1, (-1, of))


def highest_of_inputs(costs: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` highest of (groups, inputs, outputs) over the inputs; what is below 0 does not stay."""
    best = costs.topk(min(count, costs.shape[1]), 1).indices
    return torch.zeros_like(costs, dtype=torch.bool).scatter(1, best, True) & (costs >= 0)


SOME_GO = Need("more weights alive than it keeps", lambda method, view, task: method.drops(view, task), "lower keep")
PruneSecondOrder.needs = (MATRICES, SOME_GO)
