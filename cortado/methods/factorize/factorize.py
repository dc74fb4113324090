"""Factorize: what all methods of this family share - which layers, which ranks, and what becomes of each."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadValue, NothingChanged
from cortado.methods.factorize.consumers import Consumer, consumers
from cortado.methods.factorize.ranks import Cut, energy_ranks, equal_ranks, fixed_ranks, least_of_each, least_share
from cortado.methods.factorize.refit import refit
from cortado.methods.factorize.scheme import Scheme
from cortado.methods.factorize.targets import Target, find_targets, working
from cortado.methods.method import Method, knob
from cortado.network.statistics.activations import Moments, in_memory, patch_moments
from cortado.network.view import View
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task

LARGEST_METRIC = 8192
"""Inputs x taps of a layer whose second moments still fit into memory (half a gigabyte)."""


@dataclass(frozen=True)
class Factorize(Method):
    """Linear layers and convolutions without groups become chains of smaller kernels.

    Layers whose factors would cost as much as they do stay as they are. Raises BadValue for a share that the smallest
    ranks do not reach, NothingChanged when no layer has factors that cost less.
    """

    lossy = True

    keep: float = knob(0.5, low=0.0, high=1.0, help="share of the multiply-adds that stays")
    rank: int | None = knob(None, low=1, help="the same rank for every layer, instead of keep")
    ranks: str = knob(
        "energy", one_of=("equal", "energy"), help="the share in each layer, or over all of them by energy"
    )

    def apply(self, view: View, task: Task) -> None:
        targets = [target for target in find_targets(view, self.where) if self.suits(target)]
        cuts = self.cuts(view, task, targets) if targets else []
        chosen = [(cut, rank) for cut, rank in zip(cuts, self.chosen(cuts), strict=True) if rank]
        if not chosen:
            raise NothingChanged(
                f"{self.name()}: no layer of where={self.where!r} has factors that cost less at keep={self.keep:g}. "
                "Choose another share or rank, or other layers."
            )
        with view.progress.bar(self.name(), len(chosen)) as bar:
            self.put_all(view, task, chosen, bar)

    def suits(self, target: Target) -> bool:
        """Whether the method has something to offer to a layer of this shape."""
        return True

    @abstractmethod
    def cuts(self, view: View, task: Task, targets: list[Target]) -> list[Cut]:
        """What each layer could become, in the order of the layers."""

    def chosen(self, cuts: list[Cut]) -> list[int]:
        """A rank for each layer, 0 for those left alone."""
        if self.rank is not None:
            return fixed_ranks(cuts, self.rank)
        least, whose = least_share(cuts) if self.ranks == "energy" else least_of_each(cuts)
        if self.keep < least:
            # Rounded up, so that what is named can be asked for.
            raise BadValue(
                f"{self.name()}: even at the smallest ranks {math.ceil(least * 10_000) / 10_000:g} of the multiply-adds of "
                f"{whose} would stay, more than keep={self.keep:g}. Raise keep, or choose other layers with where."
            )
        return energy_ranks(cuts, self.keep) if self.ranks == "energy" else equal_ranks(cuts, self.keep)

    @abstractmethod
    def put_all(self, view: View, task: Task, chosen: list[tuple[Cut, int]], bar: Any) -> None:
        """Put the form of every layer; may add constants to the layers' outputs.  The bar advances layer by layer."""


@dataclass(frozen=True)
class FactorizeSeen(Factorize):
    """A factorisation that wants to know what each layer sees on calibration data."""

    images: int = knob(256, low=1, help="calibration samples whose activations are looked at")
    patches: int = knob(16384, low=1, help="positions that are looked at, over all samples")

    def looks(self, cut: Cut) -> bool:
        """Whether the moments of what this layer sees are wanted."""
        return cut.target.flat.shape[1] <= LARGEST_METRIC

    @abstractmethod
    def factor(self, view: View, task: Task, cut: Cut, rank: int, number: int, seen: Moments | None) -> LowRank:
        """The form of one layer, with a number of its own."""

    def put_all(self, view: View, task: Task, chosen: list[tuple[Cut, int]], bar: Any) -> None:
        for numbers in in_memory([self.looks(cut) * cut.target.flat.shape[1] ** 2 for cut, _ in chosen]):
            paths = {chosen[n][0].target.path: n for n in numbers if self.looks(chosen[n][0])}
            seen = patch_moments(view.network, paths, task, self.images, self.patches) if paths else {}
            for number in numbers:
                cut, rank = chosen[number]
                form = self.factor(view, task, cut, rank, number, seen.get(cut.target.path))
                cut.target.weight.set_form(form)
                bar.advance()


@dataclass(frozen=True)
class FactorizeFitted(FactorizeSeen):
    """A factorisation by a scheme whose factors can be fitted to the layer's outputs."""

    fit: str = knob("outputs", one_of=("outputs", "filters"), help="what is kept: the layer's outputs, or its filters")
    rounds: int = knob(4, low=0, help="rounds in which each factor is fitted once")

    @abstractmethod
    def scheme(self) -> Scheme:
        """The chain of kernels that a layer becomes."""

    def suits(self, target: Target) -> bool:
        return self.scheme().suits(target)

    def looks(self, cut: Cut) -> bool:
        return self.fit == "outputs" and super().looks(cut)

    def cuts(self, view: View, task: Task, targets: list[Target]) -> list[Cut]:
        return [self.scheme().cut(target) for target in targets]

    def factor(self, view: View, task: Task, cut: Cut, rank: int, number: int, seen: Moments | None) -> LowRank:
        scheme, weight = self.scheme(), cut.target.weight.dense()
        factors = scheme.start(working(weight), cut, rank, task.generator(977 + number))
        if seen is not None:
            factors = self.fitted(view, cut.target, factors, seen)
        else:
            factors = refit(factors, scheme.build, cut.target.flat, None, None, self.rounds)
            if self.fit == "outputs":
                view.notes.append(
                    f"{cut.target.path} reads too much to be fitted to its outputs: fitted to its filters"
                )
        return scheme.form([factor.to(weight) for factor in factors], weight)

    def fitted(self, view: View, target: Target, factors: list[Tensor], seen: Moments) -> list[Tensor]:
        """The factors, fitted to the outputs; the mean of the outputs is kept where there is a place for it."""
        build, wanted, after = self.scheme().build, target.flat, consumer_of(view, target)
        constant = after.takes_constant(target.layer)
        metric = seen.covariance if constant else seen.covariance + torch.outer(seen.mean, seen.mean)
        rows = after.scale(target.shape[0]).abs().clamp(min=1e-3).to(wanted)
        made = refit(factors, build, wanted, lifted(metric).to(wanted), rows, self.rounds)
        if constant:
            after.add_constant(target.layer, (wanted - build(made).flatten(1)).double() @ seen.mean.to(wanted.device))
        return made


def lifted(metric: Tensor, share: float = 1e-3) -> Tensor:
    """Second moments of mean 1 on the diagonal, with a share of the identity: few samples do not say all."""
    size = metric.diagonal().mean().clamp(min=1e-30)
    return metric / size + share * torch.eye(len(metric)).to(metric)


def consumer_of(view: View, target: Target) -> Consumer:
    """What follows a layer; nothing is assumed of one that is called in several places."""
    return consumers(view, [target.path])[target.path] if len(target.runs) == 1 else Consumer()
