"""Factorize: what all methods of this family share: the choice of layers and ranks, and setting the forms."""

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
"""Most inputs x taps of a layer for its second moments to fit into memory (half a gigabyte)."""


@dataclass(frozen=True)
class Factorize(Method):
    """Replace linear layers and ungrouped convolutions by chains of smaller kernels.

    Layers whose factors would cost as much as they do are unchanged. Raises BadValue for a share that the smallest
    ranks do not reach, NothingChanged if no layer has cheaper factors.
    """

    lossy = True

    keep: float = knob(0.5, low=0.0, high=1.0, help="share of the multiply-adds kept")
    rank: int | None = knob(None, low=1, help="the same rank for every layer, instead of keep")
    ranks: str = knob(
        "energy", one_of=("equal", "energy"), help="apply keep to each layer, or to all of them by energy"
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
        """Return whether the method applies to a layer of this shape."""
        return True

    @abstractmethod
    def cuts(self, view: View, task: Task, targets: list[Target]) -> list[Cut]:
        """Return the possible cut of each layer, in the order of the layers."""

    def chosen(self, cuts: list[Cut]) -> list[int]:
        """Return a rank for each layer, 0 for layers to leave unchanged."""
        if self.rank is not None:
            return fixed_ranks(cuts, self.rank)
        least, whose = least_share(cuts) if self.ranks == "energy" else least_of_each(cuts)
        if self.keep < least:
            # Rounded up, so that the share in the message is reachable.
            raise BadValue(
                f"{self.name()}: the smallest ranks keep {math.ceil(least * 10_000) / 10_000:g} of the multiply-adds of "
                f"{whose}, more than keep={self.keep:g}. Raise keep, or choose other layers with where."
            )
        return energy_ranks(cuts, self.keep) if self.ranks == "energy" else equal_ranks(cuts, self.keep)

    @abstractmethod
    def put_all(self, view: View, task: Task, chosen: list[tuple[Cut, int]], bar: Any) -> None:
        """Set the form of every layer; may add constants to layer outputs.  Advances the bar once per layer."""


@dataclass(frozen=True)
class FactorizeSeen(Factorize):
    """A factorization that uses each layer's inputs on calibration data."""

    images: int = knob(256, low=1, help="calibration samples")
    patches: int = knob(16384, low=1, help="positions sampled, over all images")

    def looks(self, cut: Cut) -> bool:
        """Return whether the input moments of this layer are needed."""
        return cut.target.flat.shape[1] <= LARGEST_METRIC

    @abstractmethod
    def factor(self, view: View, task: Task, cut: Cut, rank: int, number: int, seen: Moments | None) -> LowRank:
        """Return the form of one layer; `number` is unique to it."""

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
    """A factorization by a scheme whose factors can be fitted to the layer's outputs."""

    fit: str = knob(
        "outputs", one_of=("outputs", "filters"), help="what to approximate: the layer's outputs or filters"
    )
    rounds: int = knob(4, low=0, help="rounds of refitting each factor once")

    @abstractmethod
    def scheme(self) -> Scheme:
        """Return the chain of kernels that replaces a layer."""

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
                    f"{cut.target.path} has too many inputs to fit its outputs: its filters are fitted instead"
                )
        return scheme.form([factor.to(weight) for factor in factors], weight)

    def fitted(self, view: View, target: Target, factors: list[Tensor], seen: Moments) -> list[Tensor]:
        """Return the factors fitted to the outputs; keep the outputs' mean if it can be absorbed."""
        build, wanted, after = self.scheme().build, target.flat, consumer_of(view, target)
        constant = after.takes_constant(target.layer)
        metric = seen.covariance if constant else seen.covariance + torch.outer(seen.mean, seen.mean)
        rows = after.scale(target.shape[0]).abs().clamp(min=1e-3).to(wanted)
        made = refit(factors, build, wanted, lifted(metric).to(wanted), rows, self.rounds)
        if constant:
            after.add_constant(target.layer, (wanted - build(made).flatten(1)).double() @ seen.mean.to(wanted.device))
        return made


def lifted(metric: Tensor, share: float = 1e-3) -> Tensor:
    """Return second moments with mean 1 on the diagonal plus a share of the identity, because samples are few."""
    size = metric.diagonal().mean().clamp(min=1e-30)
    return metric / size + share * torch.eye(len(metric)).to(metric)


def consumer_of(view: View, target: Target) -> Consumer:
    """Return what follows a layer; nothing if it is called in several places."""
    return consumers(view, [target.path])[target.path] if len(target.runs) == 1 else Consumer()
