"""factorize/predict: keep a few columns of each weight and predict the others from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cortado.methods.factorize.factorize import Chosen, Factorize, factorize
from cortado.methods.factorize.inputs import LARGEST_METRIC, Samples, input_moments
from cortado.methods.factorize.ranks import Cut, fixed_ranks
from cortado.methods.factorize.svd import two_kernels, whole_then_point
from cortado.methods.factorize.targets import Target, target_need
from cortado.methods.method import knob
from cortado.network.view import View
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task

SMALL_LAYERS = target_need(
    "a linear layer, or an ungrouped, zero-padded convolution, whose inputs' moments fit into memory",
    lambda method, target: target.flat.shape[1] <= LARGEST_METRIC,
)


@dataclass(frozen=True)
class FactorizePredict(Factorize):
    """Predict most weights from a few by kernel ridge regression.  Denil et al., 2013.

    A unit's weights vary smoothly over its inputs. The kernel between two inputs is the covariance of their activations
    on calibration data, or decays with their distance in the kernel window. The predicting dictionary becomes the first
    factor; the kept weights, at the most informative inputs, become the last one.
    """

    needs = (SMALL_LAYERS,)

    keep: float = knob(0.05, low=0.0, high=1.0, help="share of the weights kept; the others are predicted")
    ranks: str = knob("equal", one_of=("equal",), help="apply keep to each layer")
    images: int = knob(256, low=1, help="calibration samples")
    patches: int = knob(16384, low=1, help="positions sampled, over all images")
    kernel: str = knob("covariance", one_of=("covariance", "distance"), help="similarity of two inputs")
    ridge: float = knob(1e-2, low=0.0, help="ridge of the regression, as a share of the kernel's mean")

    def apply(self, view: View, task: Task) -> None:
        targets = SMALL_LAYERS.require(self, view, task)
        cuts = [column_cut(target) for target in targets]
        wanted = [self.rank or max(1, round(self.keep * target.flat.shape[1])) for target in targets]
        ranks = [fixed_ranks([cut], rank)[0] for cut, rank in zip(cuts, wanted, strict=True)]
        factorize(self, view, cuts, ranks, partial(self.predicted, view, task))

    def predicted(self, view: View, task: Task, chosen: Chosen) -> Iterator[LowRank]:
        """Yield the dictionary and the kept columns of each layer."""
        needed = [self.kernel == "covariance"] * len(chosen)
        moments = input_moments(view, task, chosen, needed, Samples(self.images, self.patches))
        for (cut, rank), seen in zip(chosen, moments, strict=True):
            target = cut.target
            alike = by_distance(target.shape) if seen is None else seen.covariance
            alike = alike / alike.diagonal().mean().clamp(min=1e-30)
            places = telling(alike, rank)
            lifted = alike[places][:, places] + max(self.ridge, 1e-9) * torch.eye(len(places)).to(alike)
            dictionary = torch.linalg.solve(lifted, alike[places])
            yield two_kernels(dictionary, target.flat[:, places].double(), target.weight.dense())


def column_cut(target: Target) -> Cut:
    """Return a layer's cut by the number of columns it keeps, all equally worth."""
    return Cut(target, torch.ones(min(target.flat.shape)), partial(whole_then_point, target.shape))


def by_distance(shape: torch.Size) -> Tensor:
    """Return exp(-|distance|^2 / 2) between taps of an input channel (of a matrix, between inputs); 0 across channels."""
    if len(shape) == 2:
        at = torch.arange(shape[1], dtype=torch.float64)[:, None]
        return torch.exp(-(torch.cdist(at, at) ** 2) / 2)
    taps = torch.cartesian_prod(*[torch.arange(size, dtype=torch.float64) for size in shape[2:]])
    taps = taps.reshape(shape[2:].numel(), -1)
    return torch.kron(torch.eye(shape[1], dtype=torch.float64), torch.exp(-(torch.cdist(taps, taps) ** 2) / 2))


def telling(alike: Tensor, count: int) -> Tensor:
    """Return the pivots of a Cholesky decomposition: each input is the one least predictable from those before it."""
    left = alike.diagonal().clone()
    rows: list[Tensor] = []
    places: list[int] = []
    for _ in range(count):
        place = int(left.argmax())
        places.append(place)
        row = alike[place] - sum((old * old[place] for old in rows), torch.zeros_like(left))
        row = row / left[place].clamp(min=1e-12).sqrt()
        rows.append(row)
        left = (left - row**2).clamp(min=0)
        left[places] = -1.0
    return torch.tensor(places)
