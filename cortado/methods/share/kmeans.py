"""share/kmeans: cluster the weights of a layer to a few shared values."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cortado.layers.kinds import is_convolution
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need, some_differ
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.form import Form
from cortado.task.task import Task


@dataclass(frozen=True)
class ShareKmeans(Method):
    """Cluster each layer's weights by one-dimensional k-means and keep a codebook.  Han, Mao, Dally, 2016.

    Masks stay: only the remaining weights are clustered. Convolutions may use a different number of bits. `finetune`
    afterwards trains the shared values, each with the summed gradient of its members.
    """

    lossy = True
    needs = (
        Need(
            "a weight whose values it has not shared yet",
            lambda method, view, task: some_differ(*method.shared(view, task)),
            "choose fewer bits",
        ),
    )
    leaves = (Leaves.CODES,)

    bits: int = knob(5, low=1, high=8, help="bits of a code: 2**bits shared values per layer")
    conv_bits: int | None = knob(None, low=1, high=8, help="bits for convolutions; bits if none is given")
    start: str = knob("linear", one_of=("linear", "density", "random"), help="initial centroids")
    rounds: int = knob(100, low=1, help="most k-means iterations")

    def apply(self, view: View, task: Task) -> None:
        weights, shared = self.shared(view, task)
        for weight in weights:
            weight.set_form(shared(weight))

    def shared(self, view: View, task: Task) -> tuple[list[Weight], Callable[[Weight], Form]]:
        """Return the chosen weights, and the function that gives each its form with shared values."""
        weights = view.weights(self.where)

        def form(weight: Weight) -> Form:
            generator = task.generator(31 + weights.index(weight))
            return weight.form.map_values(partial(self.share, weight=weight, generator=generator))

        return weights, form

    def share(self, values: Tensor, weight: Weight, generator: torch.Generator) -> Form:
        conv = is_convolution(weight.layer)
        bits = self.conv_bits if conv and self.conv_bits is not None else self.bits
        flat = values.flatten()
        if flat.numel() == 0:
            return Codebook(values.new_zeros(1), values.long())
        codebook, codes = kmeans(flat, first_centroids(flat, 2**bits, self.start, generator), self.rounds)
        return Codebook(codebook, codes.view(values.shape))


def first_centroids(values: Tensor, count: int, start: str, generator: torch.Generator) -> Tensor:
    """Return `count` initial centroids: evenly over the range, at quantiles (density), or random samples (Forgy)."""
    if start == "linear":
        return torch.linspace(float(values.min()), float(values.max()), count, dtype=values.dtype, device=values.device)
    ranked = ranked_values(values)
    if start == "density":
        places = (torch.arange(count, device=values.device) + 0.5) / count * (len(ranked) - 1)
        return ranked[places.long()]
    picks = torch.randperm(len(values), generator=generator)[:count]
    return values[picks.to(values.device)].sort().values


def ranked_values(values: Tensor) -> Tensor:
    """Sort the values; with NumPy on a CPU, which sorts floats faster than torch."""
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.sort().values
    return torch.from_numpy(np.sort(values.detach().numpy()))


def kmeans(values: Tensor, centroids: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Run Lloyd's k-means on a line: return the sorted centroids that have members, and the code of each value.

    On sorted values a cluster is an interval, so an iteration is one search of the borders.
    """
    ranked = ranked_values(values).double()
    sums = torch.cat([ranked.new_zeros(1), ranked.cumsum(0)])
    centres = centroids.double().sort().values.unique()
    for _ in range(rounds):
        borders = torch.searchsorted(ranked, (centres[1:] + centres[:-1]) / 2)
        ends = torch.cat([borders, borders.new_tensor([len(ranked)])])
        starts = torch.cat([borders.new_zeros(1), borders])
        filled = ends > starts
        moved = (sums[ends] - sums[starts])[filled] / (ends - starts)[filled]
        if len(moved) == len(centres) and torch.equal(moved, centres):
            break
        centres = moved
    codes = torch.bucketize(values.double(), (centres[1:] + centres[:-1]) / 2, right=True)
    return centres.to(values.dtype), codes
