"""factorize/separable: a kernel as pairs of a depthwise and a pointwise one."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from cortado.methods.factorize.factorize import Chosen, Factorize, chosen_ranks, factorize
from cortado.methods.factorize.fitted import Fitted
from cortado.methods.factorize.inputs import Samples
from cortado.methods.factorize.ranks import Cut
from cortado.methods.factorize.scheme import Scheme
from cortado.methods.factorize.targets import KERNELS, Target, has_taps
from cortado.methods.method import knob
from cortado.network.view import View
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task

ORDERS = ("depthwise", "pointwise")
"""Which of a pair's two kernels runs first."""


@dataclass(frozen=True)
class SeparableCut(Cut):
    """A cut whose rank is the number of pairs; `order` says which kernel of a pair runs first."""

    order: str


@dataclass(frozen=True)
class FactorizeSeparable(Factorize):
    """Depthwise and pointwise kernels in place of a convolution, one pair or several.  Howard et al., 2017; Guo et al., 2018.

    With the depthwise kernel first, each input channel has `pairs` filters of its own, which a 1 x 1 kernel combines: the
    network decoupling of Guo et al. With the pointwise kernel first, each output channel has `pairs` filters of its own
    (Haase and Amthor, 2020). Both start from the singular vectors of each channel's filters, which are the closest ones, and
    are then fitted to the layer's outputs. `rank` is the number of pairs of every layer; otherwise `keep` decides.
    `finetune` after it recovers most of what one pair loses.
    """

    needs = (KERNELS,)

    keep: float = knob(0.33, low=0.0, high=1.0, help="share of the multiply-adds kept")
    order: str = knob(
        "best", one_of=("best", *ORDERS), help="the kernel that runs first; best: in each layer the one that keeps more"
    )
    images: int = knob(256, low=1, help="calibration samples")
    patches: int = knob(16384, low=1, help="positions sampled, over all images")
    fit: str = knob(
        "outputs", one_of=("outputs", "filters"), help="what to approximate: the layer's outputs or filters"
    )
    rounds: int = knob(4, low=0, help="rounds of refitting each factor once")

    def apply(self, view: View, task: Task) -> None:
        cuts = [self.cut(target) for target in KERNELS.require(self, view, task)]
        factorize(self, view, cuts, chosen_ranks(self, cuts), partial(self.fitted, view, task))

    def cut(self, target: Target) -> SeparableCut:
        """Return the numbers of pairs of a layer, in the order asked for, or in the one that keeps more of the filters."""
        cuts = [separable_cut(target, order) for order in ORDERS if self.order in ("best", order)]

        def kept(cut: SeparableCut) -> tuple[bool, float]:
            pairs = min(self.rank or cut.largest(self.keep * target.dense_cost), len(cut.energies))
            if not pairs or cut.cost(pairs) >= target.dense_cost:
                return False, -float(cut.cost(1))
            return True, float(cut.energies[:pairs].sum() / cut.energies.sum().clamp(min=1e-30))

        return max(cuts, key=kept)

    def fitted(self, view: View, task: Task, chosen: Chosen) -> Iterator[LowRank]:
        """Yield the form of each layer; layers of one order that follow each other share passes over the data."""
        samples = Samples(self.images, self.patches)
        for order, layers in groupby(chosen, key=lambda one: order_of(one[0])):
            yield from Fitted(view, task, SCHEMES[order], self.fit == "outputs", self.rounds, samples)(list(layers))


def order_of(cut: Cut) -> str:
    """Return the order of a cut's pairs."""
    assert isinstance(cut, SeparableCut)
    return cut.order


def separable_cut(target: Target, order: str) -> SeparableCut:
    """Return what each further pair adds to the energy of the filters, with one set of filters for each channel."""
    filters = by_own_channel(target.weight.dense(), order).double()
    energies = (torch.linalg.svdvals(filters) ** 2).sum(0)
    return SeparableCut(target, energies, partial(separable_sketch, target.shape, order), order)


def by_own_channel(weight: Tensor, order: str) -> Tensor:
    """Return (channels, channels of the other side, taps), of the channels that have depthwise filters of their own."""
    flat = weight.flatten(2)
    return flat.transpose(0, 1) if order == "depthwise" else flat


def separable_sketch(shape: torch.Size, order: str, pairs: int) -> LowRank:
    """Return the shapes of the two kernels without values."""
    channels, others = (shape[1], shape[0]) if order == "depthwise" else (shape[0], shape[1])
    taps = torch.empty(channels, pairs, shape[2:].numel(), device="meta")
    return pair_form([torch.empty(channels, others, pairs, device="meta"), taps], shape, order)


def pair_form(factors: list[Tensor], shape: torch.Size, order: str) -> LowRank:
    """Return sums (channels, others, pairs) and filters (channels, pairs, taps) as two kernels in running order."""
    sums, filters = factors
    channels, others, pairs = sums.shape
    ones, many = [1] * (len(shape) - 2), channels * pairs
    if order == "depthwise":
        point = sums.permute(1, 0, 2).reshape(others, many, *ones)
        return LowRank(Dense(filters.reshape(many, 1, *shape[2:])), Dense(point), first_groups=channels)
    point = sums.transpose(1, 2).reshape(many, others, *ones)
    return LowRank(Dense(point), Dense(filters.reshape(channels, pairs, *shape[2:])), last_groups=channels)


def principal_filters(weight: Tensor, order: str, pairs: int) -> list[Tensor]:
    """Return the sums and filters that are closest to a weight: the leading singular vectors of each channel."""
    u, s, v = torch.linalg.svd(by_own_channel(weight, order).double(), full_matrices=False)
    root = s[:, :pairs].sqrt()
    return [(u[..., :pairs] * root[:, None]).to(weight), (root[..., None] * v[:, :pairs]).to(weight)]


def sum_of_pairs(factors: list[Tensor], order: str) -> Tensor:
    """Return (outputs, inputs, taps)."""
    made = factors[0] @ factors[1]
    return made.transpose(0, 1) if order == "depthwise" else made


def scheme_in(order: str) -> Scheme:
    """Return the scheme whose pairs run in this order."""
    return Scheme(
        suits=has_taps,
        cut=lambda target: separable_cut(target, order),
        start=lambda weight, cut, pairs, generator: principal_filters(weight, order, pairs),
        build=lambda factors: sum_of_pairs(factors, order),
        form=lambda factors, weight: pair_form(factors, weight.shape, order),
    )


SCHEMES = {order: scheme_in(order) for order in ORDERS}
