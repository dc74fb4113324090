"""factorize/cp: a kernel as a sum of outer products, run as 1 x 1, d x 1, 1 x d and 1 x 1."""

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
from cortado.methods.method import knob
from cortado.network.view import View
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task


@dataclass(frozen=True)
class FactorizeCp(Factorize):
    """Canonical polyadic (CP) decomposition of convolutions.  Lebedev et al., 2015.

    Computed by alternating least squares from several random starts, keeping the closest; a ridge prevents diverging
    terms. The factors are then fitted to the layer's outputs. Kernel axes of size 1 have no factor.
    """

    needs = (KERNELS,)

    images: int = knob(256, low=1, help="calibration samples")
    patches: int = knob(16384, low=1, help="positions sampled, over all images")
    fit: str = knob(
        "outputs", one_of=("outputs", "filters"), help="what to approximate: the layer's outputs or filters"
    )
    rounds: int = knob(4, low=0, help="rounds of refitting each factor once")
    starts: int = knob(2, low=1, help="random starts")
    sweeps: int = knob(60, low=1, help="rounds of alternating least squares on the filters")
    ridge: float = knob(1e-3, low=0.0, help="ridge on the factors, as a share of their mean square")

    def apply(self, view: View, task: Task) -> None:
        scheme = cp_scheme(self.starts, self.sweeps, self.ridge)
        cuts = [scheme.cut(target) for target in KERNELS.require(self, view, task)]
        fit = Fitted(view, task, scheme, self.fit == "outputs", self.rounds, Samples(self.images, self.patches))
        factorize(self, view, cuts, chosen_ranks(self, cuts), fit)


def cp_scheme(starts: int, sweeps: int, ridge: float) -> Scheme:
    """Return the scheme 1 x 1, each kernel axis depthwise, 1 x 1."""

    def start(weight: Tensor, cut: Cut, rank: int, generator: torch.Generator) -> list[Tensor]:
        tensor = weight.squeeze(tuple(axis for axis in range(2, weight.dim()) if weight.shape[axis] == 1))
        tried = [decompose(tensor, rank, sweeps, ridge, generator) for _ in range(starts)]
        return min(tried, key=lambda factors: float((outer_sum(factors) - tensor).norm()))

    return Scheme(
        suits=has_taps,
        cut=lambda target: Cut(target, energies(target), partial(cp_sketch, target.shape)),
        start=start,
        build=outer_sum,
        form=cp_chain,
    )


def cp_sketch(shape: torch.Size, rank: int) -> LowRank:
    shapes = cp_shapes(shape, rank)
    return sketch(*shapes, depthwise=tuple(range(1, len(shapes) - 1)))


def cp_shapes(shape: torch.Size, rank: int) -> list[tuple[int, ...]]:
    """Return the shapes of the kernels in order: 1 x 1, each axis depthwise, 1 x 1."""
    ones = [1] * (len(shape) - 2)
    axes = [axis for axis, size in enumerate(shape[2:]) if size > 1]
    along = [(rank, 1, *ones[:axis], shape[2 + axis], *ones[axis + 1 :]) for axis in axes]
    return [(rank, shape[1], *ones), *along, (shape[0], rank, *ones)]


def energies(target: Target) -> Tensor:
    """Return the squared singular values of (inputs x first taps, outputs x other taps), stretched over all useful ranks.

    CP terms have no order; how fast these values fall approximates what each further term is worth.
    """
    weight = target.weight.dense()
    outputs, inputs, high = weight.shape[:3]
    unfolded = weight.reshape(outputs, inputs, high, -1).permute(1, 2, 0, 3).reshape(inputs * high, -1)
    falling = squares(unfolded)
    per_rank = cp_sketch(target.shape, 1).multiply_adds([1] * (weight.dim() - 2), [1] * (weight.dim() - 2))
    most = max(1, weight.numel() // per_rank)
    return falling[(torch.arange(most) * len(falling)) // most]


def outer_sum(factors: list[Tensor]) -> Tensor:
    """Return (outputs, inputs, taps ...) from the (size, rank) factor of each axis."""
    inner = factors[1]
    for factor in factors[2:]:
        inner = inner[..., None, :] * factor
    return torch.einsum("nr,...r->n...", factors[0], inner)


def decompose(tensor: Tensor, rank: int, sweeps: int, ridge: float, generator: torch.Generator) -> list[Tensor]:
    """Return a (size, rank) factor for each axis of a tensor, by alternating least squares from a random start."""
    value = tensor.double()
    scale = value.norm().clamp(min=1e-30)
    value = value / scale
    factors = [torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in value.shape]
    factors = [(factor / factor.norm(dim=0)).to(value.device) for factor in factors]
    for _ in range(sweeps):
        for axis in range(value.dim()):
            gram = torch.ones(rank, rank, dtype=torch.float64, device=value.device)
            for other in factors[:axis] + factors[axis + 1 :]:
                gram = gram * (other.T @ other)
            lifted = gram + (ridge * gram.diagonal().mean() + 1e-12) * torch.eye(rank).to(gram)
            factors[axis] = torch.linalg.solve(lifted, against_others(value, factors, axis).T).T
        factors = balanced(factors)
    shares = scale ** (1 / len(factors))
    return [(factor * shares).to(tensor) for factor in factors]


def against_others(value: Tensor, factors: list[Tensor], axis: int) -> Tensor:
    """Contract the tensor with each term's factors of all other axes; return (size of the axis, rank).

    The longest other axis is contracted first, as one matrix product, so the terms are never expanded.
    """
    first = max((other for other in range(value.dim()) if other != axis), key=lambda other: value.shape[other])
    summed = value.movedim(first, -1) @ factors[first]
    rest = [other for other in range(value.dim()) if other != first]
    for other in reversed(rest):
        if other != axis:
            place = rest.index(other)
            factor = factors[other].reshape(-1, *[1] * (len(rest) - place - 1), factors[other].shape[1])
            summed = (summed * factor).sum(place, keepdim=True)
    return summed.movedim(rest.index(axis), 0).reshape(value.shape[axis], -1)


def balanced(factors: list[Tensor]) -> list[Tensor]:
    """Return the same terms, each with an equal norm in every factor."""
    norms = [factor.norm(dim=0).clamp(min=1e-30) for factor in factors]
    mean = torch.stack(norms).log().mean(0).exp()
    return [factor * (mean / norm) for factor, norm in zip(factors, norms, strict=True)]


def cp_chain(factors: list[Tensor], weight: Tensor) -> LowRank:
    """Return the kernels of cp_shapes from the factors of each axis."""
    shapes = cp_shapes(weight.shape, factors[0].shape[1])
    ordered = [factors[1].T, *[factor.T for factor in factors[2:]], factors[0]]
    kernels = [kernel.reshape(shape) for kernel, shape in zip(ordered, shapes, strict=True)]
    return chain(kernels, tuple(range(1, len(kernels) - 1)))
