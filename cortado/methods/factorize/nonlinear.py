"""factorize/nonlinear: fit factors through the ReLU behind them, on activations that are already approximate."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cortado.methods.factorize.consumers import Consumer, consumer_of
from cortado.methods.factorize.cp import cp_scheme
from cortado.methods.factorize.factorize import Chosen, Factorize, chosen_ranks, factorize
from cortado.methods.factorize.inputs import LARGEST_METRIC
from cortado.methods.factorize.jaderberg import COLUMNS
from cortado.methods.factorize.refit import refit
from cortado.methods.factorize.response import bias_of, response_cuts, usable
from cortado.methods.factorize.scheme import Scheme
from cortado.methods.factorize.svd import WHOLE
from cortado.methods.factorize.targets import Target, target_need, working
from cortado.methods.method import knob
from cortado.network.statistics.activations import (
    MOST_ENTRIES,
    activations_into,
    collect_activations,
    layer_places,
    patches,
)
from cortado.network.view import View
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task

SCHEMES = {"whole": WHOLE, "columns": COLUMNS, "cp": cp_scheme(1, 40, 1e-3)}


SUITED = target_need(
    "a linear layer, or an ungrouped, zero-padded convolution, that its chain suits and whose moments fit into memory",
    lambda method, target: SCHEMES[method.chain].suits(target) and target.flat.shape[1] <= LARGEST_METRIC,
)


@dataclass(frozen=True)
class FactorizeNonlinear(Factorize):
    """Minimise the error behind the ReLU, layer by layer on the outputs of layers already factored.  Zhang et al., 2015.

    Targets are the responses of the original network, inputs those of the approximated one, so each layer corrects
    errors of the layers before it (asymmetric). Auxiliary responses z handle the ReLU: they alternate with the factors
    under a growing coupling. A batch norm between layer and ReLU is included; without a ReLU right behind, the fit is
    linear. `chain`: the paper's whole filters and 1 x 1 kernel, columns and rows (Zhang et al., 2016, "3d"), or CP.
    """

    needs = (SUITED,)

    chain: str = knob("whole", one_of=tuple(SCHEMES), help="kernels of the chain: whole x 1x1, columns x rows, or cp")
    images: int = knob(256, low=1, help="calibration samples")
    patches: int = knob(16384, low=1, help="positions sampled, over all images")
    rounds: int = knob(8, low=1, help="rounds of regression factors and auxiliary responses in turn")

    def apply(self, view: View, task: Task) -> None:
        scheme, targets, whole = SCHEMES[self.chain], SUITED.require(self, view, task), self.chain == "whole"
        cuts = response_cuts(view, task, targets, self.images) if whole else [scheme.cut(one) for one in targets]
        factorize(self, view, cuts, chosen_ranks(self, cuts), partial(self.layer_by_layer, view, task))

    def layer_by_layer(self, view: View, task: Task, chosen: Chosen) -> Iterator[LowRank]:
        """Yield the form of each layer, fitted on the outputs of those before it."""
        # Targets come from the original network, inputs from the one under construction.
        wanted = self.products(view, task, [cut.target for cut, _ in chosen])
        for number, (cut, rank) in enumerate(chosen):
            target, scheme, weight = cut.target, SCHEMES[self.chain], cut.target.weight.dense()
            layer = Fit(target, consumer_of(view, target), wanted[number], self.read(view, task, target, number))
            factors = scheme.start(working(weight), cut, rank, task.generator(977 + number))
            factors = layer.factors(scheme, factors, rank, self.rounds)
            layer.after.add_constant(target.layer, layer.constant)
            yield scheme.form([factor.to(weight) for factor in factors], weight)

    def places(self, task: Task, target: Target) -> int:
        """Return how many positions to sample from each image."""
        assert task.calibration is not None
        rows = min(self.patches, MOST_ENTRIES // target.flat.shape[1])
        return -(-rows // min(self.images, len(task.calibration)))

    def products(self, view: View, task: Task, targets: list[Target]) -> list[Tensor]:
        """Return the outputs of each layer in the original network, without bias: (rows, outputs)."""
        assert task.calibration is not None
        numbers = {target.path: number for number, target in enumerate(targets)}
        generators = [layer_places(task, number) for number in range(len(targets))]
        found: list[list[Tensor]] = [[] for _ in targets]

        def note(path: str, activation: Tensor) -> None:
            number = numbers[path]
            target = targets[number]
            rows = working(patches(target.layer, activation, self.places(task, target), generators[number]))
            found[number].append(rows @ target.flat.T)

        collect_activations(view.network, list(numbers), task.calibration.first(self.images), note)
        return [torch.cat(rows) for rows in found]

    def read(self, view: View, task: Task, target: Target, number: int) -> Tensor:
        """Return the layer's inputs in the network under construction, at the same positions: (rows, inputs x taps)."""
        assert task.calibration is not None
        data, generator = task.calibration.first(self.images), layer_places(task, number)
        activations, each = activations_into(view.network, target.path, data), self.places(task, target)
        return torch.cat([working(patches(target.layer, activation, each, generator)) for activation in activations])


class Fit:
    """The search for one layer's factors.  `constant` must be added to the new layer's output."""

    def __init__(self, target: Target, after: Consumer, products: Tensor, read: Tensor) -> None:
        """`products`: (rows, outputs) of the original layer; `read`: (rows, inputs x taps) that the new one reads there."""
        count = target.shape[0]
        self.after, self.weight, self.bias = after, target.flat, bias_of(target).to(read)
        self.scale, self.shift = usable(after.scale(count)).to(read), after.shift(count).to(read)
        self.constant = torch.zeros(count).to(read)
        self.free = after.takes_constant(target.layer)
        self.wanted = self.responses(products)
        self.mean = read.mean(0) if self.free else torch.zeros_like(read[0])
        self.read = read - self.mean
        metric = (self.read.T @ self.read / len(read)).double()
        # Where samples carry little information, the layer stays close to its original.
        self.pull = 3e-3 * metric.diagonal().mean().clamp(min=1e-30)
        self.metric = (metric + self.pull * torch.eye(len(metric)).to(metric)).to(read)
        self.root = torch.linalg.cholesky(self.metric.double())

    def responses(self, products: Tensor) -> Tensor:
        """Return the responses behind the norm, from outputs without bias."""
        return self.scale * (products + self.bias) + self.shift

    def factors(self, scheme: Scheme, factors: list[Tensor], rank: int, rounds: int) -> list[Tensor]:
        factors = self.closest(scheme, factors, rank, self.wanted, 6)
        if not self.after.relu:
            return factors
        for number in range(rounds):
            pull = 0.01 ** (1 - number / max(1, rounds - 1))
            made = self.read @ scheme.build(factors).flatten(1).T + self.mean @ scheme.build(factors).flatten(1).T
            factors = self.closest(scheme, factors, rank, self.auxiliary(self.responses(made + self.constant), pull), 1)
        return factors

    def auxiliary(self, made: Tensor, pull: float) -> Tensor:
        """Return for each entry the z that minimises (relu(y) - relu(z))^2 + pull (z - made)^2; one candidate per sign."""
        goal = self.wanted.clamp(min=0)
        below, above = made.clamp(max=0), ((pull * made + goal) / (pull + 1)).clamp(min=0)
        first = goal**2 + pull * (below - made) ** 2
        second = (goal - above) ** 2 + pull * (above - made) ** 2
        return torch.where(first < second, below, above)

    def closest(self, scheme: Scheme, factors: list[Tensor], rank: int, wanted: Tensor, rounds: int) -> list[Tensor]:
        """Return the factors, and the constant, whose responses are closest to `wanted` in mean square."""
        products = (wanted - self.shift) / self.scale - self.bias
        middle = products.mean(0) if self.free else torch.zeros_like(self.constant)
        crossed = ((products - middle).T @ self.read / len(self.read)).double() + self.pull * self.weight.double()
        best = torch.cholesky_solve(crossed.T, self.root).T.to(self.weight)
        if scheme.closest is not None:
            factors = scheme.closest(best, self.metric, self.scale.abs(), rank)
        else:
            factors = refit(factors, scheme.build, best, self.metric, self.scale.abs(), rounds)
        if self.free:
            self.constant = middle - scheme.build(factors).flatten(1) @ self.mean
        return factors
