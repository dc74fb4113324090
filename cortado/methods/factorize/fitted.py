"""Fitted: the factors of a scheme, fitted to each layer's outputs or to its filters."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.factorize.consumers import consumer_of
from cortado.methods.factorize.factorize import Chosen
from cortado.methods.factorize.inputs import LARGEST_METRIC, Samples, input_moments
from cortado.methods.factorize.refit import refit
from cortado.methods.factorize.scheme import Scheme
from cortado.methods.factorize.targets import Target, working
from cortado.network.statistics.activations import Moments
from cortado.network.view import View
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task


@dataclass(frozen=True)
class Fitted:
    """A fit of a scheme's factors, `rounds` times each; `outputs`: to the layer's outputs, else to its filters.

    A layer with too many inputs is fitted to its filters, with a note.
    """

    view: View
    task: Task
    scheme: Scheme
    outputs: bool
    rounds: int
    samples: Samples

    def __call__(self, chosen: Chosen) -> Iterator[LowRank]:
        """Yield the form of each layer; keep the outputs' mean if it can be absorbed."""
        scheme = self.scheme
        needed = [self.outputs and cut.target.flat.shape[1] <= LARGEST_METRIC for cut, _ in chosen]
        moments = input_moments(self.view, self.task, chosen, needed, self.samples)
        for number, ((cut, rank), seen) in enumerate(zip(chosen, moments, strict=True)):
            weight = cut.target.weight.dense()
            factors = scheme.start(working(weight), cut, rank, self.task.generator(977 + number))
            if seen is not None:
                factors = self.to_outputs(cut.target, factors, seen)
            else:
                factors = refit(factors, scheme.build, cut.target.flat, None, None, self.rounds)
            if self.outputs and seen is None:
                self.view.notes.append(
                    f"{cut.target.path} has too many inputs to fit its outputs: its filters are fitted instead"
                )
            yield scheme.form([factor.to(weight) for factor in factors], weight)

    def to_outputs(self, target: Target, factors: list[Tensor], seen: Moments) -> list[Tensor]:
        """Return the factors fitted to the outputs, and add the constant that keeps the outputs' mean."""
        build, wanted, after = self.scheme.build, target.flat, consumer_of(self.view, target)
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
