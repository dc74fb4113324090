"""factorize/tucker: a kernel as 1 x 1, a small core and 1 x 1."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cortado.methods.factorize.factorize import Factorize, chosen_ranks, factorize
from cortado.methods.factorize.fitted import Fitted
from cortado.methods.factorize.inputs import Samples
from cortado.methods.factorize.ranks import Cut, squares
from cortado.methods.factorize.scheme import Scheme
from cortado.methods.factorize.targets import KERNELS, Target, chain, has_taps, sketch
from cortado.methods.factorize.vbmf import vbmf_rank
from cortado.methods.method import knob
from cortado.network.view import View
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task

Pair = tuple[int, int]
"""The core's number of output and input channels."""


@dataclass(frozen=True)
class PairCut(Cut):
    """A cut whose rank r is the r-th smallest core."""

    pairs: list[Pair]


@dataclass(frozen=True)
class FactorizeTucker(Factorize):
    """Tucker-2 decomposition of convolutions over their channels.  Kim et al., 2016.

    Computed by higher-order orthogonal iteration, then fitted to the layer's outputs. With `ranks: vbmf`, variational
    Bayesian matrix factorization sets each layer's ranks and `keep` is ignored. With `rank`, the core has at most that
    number of channels on both sides. A side that keeps all its channels has no 1 x 1 kernel.
    """

    needs = (KERNELS,)

    ranks: str = knob(
        "energy", one_of=("equal", "energy", "vbmf"), help="apply keep to each layer, to all by energy, or use VBMF"
    )

    images: int = knob(256, low=1, help="calibration samples")
    patches: int = knob(16384, low=1, help="positions sampled, over all images")
    fit: str = knob(
        "outputs", one_of=("outputs", "filters"), help="what to approximate: the layer's outputs or filters"
    )
    rounds: int = knob(4, low=0, help="rounds of refitting each factor once")

    def apply(self, view: View, task: Task) -> None:
        cuts = [pair_cut(target) for target in KERNELS.require(self, view, task)]
        exact = self.ranks == "vbmf" or self.rank is not None
        ranks = exact_cores(cuts, self.rank) if exact else chosen_ranks(self, cuts)
        fit = Fitted(view, task, TUCKER, self.fit == "outputs", self.rounds, Samples(self.images, self.patches))
        factorize(self, view, cuts, ranks, fit)


def exact_cores(cuts: list[PairCut], rank: int | None) -> list[int]:
    """Return each layer's core of at most `rank` channels on both sides, or of VBMF's; 0 where it does not cost less.

    The core becomes the last entry of the cut's path.
    """
    found = []
    for cut in cuts:
        weight = cut.target.weight.dense()
        wanted = [rank, rank] if rank is not None else [vbmf_rank(mode(weight, axis)) for axis in (0, 1)]
        outputs, inputs = (max(1, min(one, size)) for one, size in zip(wanted, weight.shape[:2], strict=True))
        cut.pairs.append((outputs, inputs))
        cost = cut.target.cost(pair_sketch(cut.target.shape, cut.pairs, len(cut.pairs)))
        found.append(len(cut.pairs) if cost < cut.target.dense_cost else 0)
    return found


def pair_sketch(shape: torch.Size, pairs: list[Pair], rank: int) -> LowRank:
    """Return the shapes of the chain with the core `pairs[rank - 1]`."""
    return sketch(*tucker_shapes(shape, pairs[rank - 1]))


def tucker_shapes(shape: torch.Size, pair: Pair) -> list[tuple[int, ...]]:
    """Return the shapes of the input kernel, the core and the output kernel; the ends only where they narrow."""
    ones, (outputs, inputs) = [1] * (len(shape) - 2), pair
    before = [(inputs, shape[1], *ones)] if inputs < shape[1] else []
    after = [(shape[0], outputs, *ones)] if outputs < shape[0] or not before else []
    return [*before, (outputs, inputs, *shape[2:]), *after]


def mode(weight: Tensor, axis: int) -> Tensor:
    """Return the weight with one row for each channel of an axis."""
    return weight.movedim(axis, 0).flatten(1)


def pair_cut(target: Target) -> PairCut:
    """Return cores from the smallest to the largest; each step shrinks the side that loses less energy per cost saved.

    Only cores cheaper than all larger ones count: a side's first 1 x 1 kernel may cost more than it saves.
    """
    weight, shape = target.weight.dense(), target.shape
    kept = [squares(mode(weight, axis)).cumsum(0) for axis in (0, 1)]
    kept = [(energy / energy[-1].clamp(min=1e-300)).clamp(min=1e-30).log() for energy in kept]
    pair, taps = [len(energy) for energy in kept], shape[2:].numel()
    pairs, logs = [(pair[0], pair[1])], [0.0]
    while max(pair) > 1:
        losses = []
        for axis in (0, 1):
            saved = taps * pair[1 - axis] + shape[axis]
            lost = float(kept[axis][pair[axis] - 1] - kept[axis][pair[axis] - 2]) if pair[axis] > 1 else float("inf")
            losses.append(lost / saved)
        pair[losses[1] < losses[0]] -= 1
        pairs.append((pair[0], pair[1]))
        logs.append(float(kept[0][pair[0] - 1] + kept[1][pair[1] - 1]))
    costs = [target.cost(pair_sketch(shape, pairs, rank)) for rank in range(1, len(pairs) + 1)]
    cheap = [n for n, cost in enumerate(costs) if cost < min(costs[:n], default=cost + 1)]
    together = torch.tensor([logs[n] for n in reversed(cheap)], dtype=torch.float64).exp()
    pairs = [pairs[n] for n in reversed(cheap)]
    return PairCut(target, together.diff(prepend=torch.zeros(1).double()), partial(pair_sketch, shape, pairs), pairs)


def orthogonal_iteration(weight: Tensor, pair: Pair, sweeps: int = 10) -> list[Tensor]:
    """Return (inputs', inputs), the core (outputs', inputs', taps) and (outputs, outputs'): HOOI from the HOSVD."""
    value = weight.flatten(2).double()
    right = leading(mode(value, 1), pair[1])
    left = leading(mode(value, 0), pair[0])
    for _ in range(sweeps):
        left = leading(mode(torch.einsum("ncx,cb->nbx", value, right), 0), pair[0])
        right = leading(mode(torch.einsum("ncx,na->acx", value, left), 1), pair[1])
    core = torch.einsum("ncx,na,cb->abx", value, left, right)
    return [right.T.contiguous().to(weight), core.to(weight), left.to(weight)]


def leading(rows: Tensor, count: int) -> Tensor:
    """Return the leading `count` left singular vectors, as columns."""
    vectors = torch.linalg.eigh(rows @ rows.T)[1]
    return vectors.flip(1)[:, :count]


def core_between(factors: list[Tensor]) -> Tensor:
    """Return (outputs, inputs, taps)."""
    before, core, after = factors
    return torch.einsum("na,abx->nbx", after, torch.einsum("abx,bc->acx", core, before))


def tucker_chain(factors: list[Tensor], weight: Tensor) -> LowRank:
    """Return the kernels of tucker_shapes; an end that does not narrow is multiplied into the core."""
    before, core, after = factors
    pair = (core.shape[0], core.shape[1])
    shapes = tucker_shapes(weight.shape, pair)
    kernels = []
    if pair[1] < weight.shape[1]:
        kernels.append(before)
    else:
        core = torch.einsum("abx,bc->acx", core, before)
    last = pair[0] < weight.shape[0] or not kernels
    kernels += [core, after] if last else [torch.einsum("na,abx->nbx", after, core)]
    return chain([kernel.reshape(shape) for kernel, shape in zip(kernels, shapes, strict=True)])


def first_factors(weight: Tensor, cut: Cut, rank: int, generator: torch.Generator) -> list[Tensor]:
    assert isinstance(cut, PairCut)
    return orthogonal_iteration(weight, cut.pairs[rank - 1])


TUCKER = Scheme(
    suits=has_taps,
    cut=pair_cut,
    start=first_factors,
    build=core_between,
    form=tucker_chain,
)
"""1 x 1, a core, 1 x 1."""
