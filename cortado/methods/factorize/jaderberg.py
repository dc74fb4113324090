"""factorize/jaderberg: kernels as columns and rows."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cortado.methods.factorize.factorize import Factorize, chosen_ranks, factorize
from cortado.methods.factorize.fitted import Fitted
from cortado.methods.factorize.inputs import Samples
from cortado.methods.factorize.ranks import Cut, squares
from cortado.methods.factorize.scheme import Scheme
from cortado.methods.factorize.targets import Target, chain, sketch, target_need
from cortado.methods.method import knob
from cortado.network.view import View
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task


def scheme_of(method: "FactorizeJaderberg") -> Scheme:
    """Return the scheme that a method asks for."""
    return COLUMNS if method.kind == 2 else BASIS


PLANES = target_need(
    "an ungrouped, zero-padded convolution, that is called, whose kernel has two axes to separate",
    lambda method, target: scheme_of(method).suits(target),
)


@dataclass(frozen=True)
class FactorizeJaderberg(Factorize):
    """Separable filters, in one of two schemes.  Jaderberg, Vedaldi, Zisserman, 2014.

    Scheme 1: each input channel has its own few separable filters (d x 1, then 1 x d), and a 1 x 1 kernel combines
    them. Scheme 2: d x 1 filters over all channels, then 1 x d filters over these. Both can be fitted to the filters or
    the layer's outputs (`fit`). Scheme 2 starts from the optimal fit to the filters, which is closed form.
    """

    needs = (PLANES,)

    images: int = knob(256, low=1, help="calibration samples")
    patches: int = knob(16384, low=1, help="positions sampled, over all images")
    fit: str = knob(
        "outputs", one_of=("outputs", "filters"), help="what to approximate: the layer's outputs or filters"
    )
    rounds: int = knob(4, low=0, help="rounds of refitting each factor once")
    kind: int = knob(2, one_of=(1, 2), help="scheme 1: a basis for each input channel; 2: columns, then rows")

    def apply(self, view: View, task: Task) -> None:
        scheme = scheme_of(self)
        cuts = [scheme.cut(target) for target in PLANES.require(self, view, task)]
        fit = Fitted(view, task, scheme, self.fit == "outputs", self.rounds, Samples(self.images, self.patches))
        factorize(self, view, cuts, chosen_ranks(self, cuts), fit)


def column_sketch(shape: torch.Size, rank: int) -> LowRank:
    """Return the shapes of scheme 2: (rank, inputs, d, 1 ...), then (outputs, rank, 1, d ...)."""
    rest = shape[3:]
    return sketch((rank, shape[1], shape[2], *[1] * len(rest)), (shape[0], rank, 1, *rest))


def columns_by_rows(weight: Tensor) -> Tensor:
    """Return (inputs x d, outputs x the other axes), whose rank is the number of columns that scheme 2 needs."""
    outputs, inputs, high = weight.shape[:3]
    return weight.reshape(outputs, inputs, high, -1).permute(1, 2, 0, 3).reshape(inputs * high, -1)


def columns_and_rows(weight: Tensor, rank: int) -> list[Tensor]:
    """Return the best (rank, inputs, d) and (outputs, rank, other taps) for the filters."""
    outputs, inputs, high = weight.shape[:3]
    u, s, v = torch.linalg.svd(columns_by_rows(weight).double(), full_matrices=False)
    root = s[:rank].sqrt()
    columns = (u[:, :rank] * root).T.reshape(rank, inputs, high)
    rows = (root[:, None] * v[:rank]).reshape(rank, outputs, -1).transpose(0, 1)
    return [columns.to(weight), rows.to(weight).contiguous()]


def rows_after_columns(factors: list[Tensor]) -> Tensor:
    """Return (outputs, inputs, d, other taps)."""
    return torch.einsum("kci,nkj->ncij", *factors)


def as_columns(factors: list[Tensor], weight: Tensor) -> LowRank:
    columns, rows = factors
    rest = weight.shape[3:]
    first = columns.reshape(*columns.shape, *[1] * len(rest))
    return chain([first, rows.reshape(*rows.shape[:2], 1, *rest)])


def basis_sketch(shape: torch.Size, rank: int) -> LowRank:
    """Return the shapes of scheme 1: `rank` columns per input channel, a row for each, and a 1 x 1 kernel."""
    many, inputs = rank * shape[1], shape[1]
    kernels = [(many, 1, shape[2], 1), (many, 1, 1, shape[3]), (shape[0], many, 1, 1)]
    return in_order([torch.empty(size, device="meta") for size in kernels], inputs)


def in_order(kernels: list[Tensor], inputs: int) -> LowRank:
    """Chain columns grouped by input, rows with one group each, and the kernel that sums them."""
    many = kernels[0].shape[0]
    basis = LowRank(Dense(kernels[0]), Dense(kernels[1]), inputs, inputs, many)
    return LowRank(basis, Dense(kernels[2]), first_groups=inputs)


def basis_energies(weight: Tensor) -> Tensor:
    """Return what each further filter per input channel adds, if every filter were separable."""
    by_input = weight.transpose(0, 1).flatten(2).double()
    return (torch.linalg.svdvals(by_input) ** 2).sum(0)


def own_basis(weight: Tensor, rank: int) -> list[Tensor]:
    """Return (inputs, rank, d), (inputs, rank, d) and (outputs, inputs, rank): principal filters, made separable, and sums."""
    high, wide = weight.shape[2:]
    by_input = weight.transpose(0, 1).flatten(2).double()
    u, s, v = torch.linalg.svd(by_input, full_matrices=False)
    left, size, right = torch.linalg.svd(v[:, :rank].unflatten(2, (high, wide)), full_matrices=False)
    columns, rows = left[..., 0] * size[..., :1], right[..., 0, :]
    sums = (u[..., :rank] * s[:, None, :rank]).permute(1, 0, 2)
    return [columns.to(weight), rows.to(weight), sums.to(weight).contiguous()]


def sums_of_basis(factors: list[Tensor]) -> Tensor:
    """(outputs, inputs, d, d)."""
    columns, rows, sums = factors
    basis = columns[..., :, None] * rows[..., None, :]
    return torch.einsum("ncm,cmij->ncij", sums, basis)


def as_basis(factors: list[Tensor], weight: Tensor) -> LowRank:
    columns, rows, sums = factors
    many = columns.shape[0] * columns.shape[1]
    kernels = [columns.reshape(many, 1, -1, 1), rows.reshape(many, 1, 1, -1), sums.reshape(len(sums), many, 1, 1)]
    return in_order(kernels, columns.shape[0])


def is_plane(target: Target) -> bool:
    """Return whether a kernel has at least two axes to separate."""
    return sum(size > 1 for size in target.shape[2:]) >= 2


COLUMNS = Scheme(
    suits=is_plane,
    cut=lambda target: Cut(
        target, squares(columns_by_rows(target.weight.dense())), partial(column_sketch, target.shape)
    ),
    start=lambda weight, cut, rank, generator: columns_and_rows(weight, rank),
    build=rows_after_columns,
    form=as_columns,
)
"""Scheme 2."""

BASIS = Scheme(
    suits=lambda target: is_plane(target) and len(target.shape) == 4,
    cut=lambda target: Cut(target, basis_energies(target.weight.dense()), partial(basis_sketch, target.shape)),
    start=lambda weight, cut, rank, generator: own_basis(weight, rank),
    build=sums_of_basis,
    form=as_basis,
)
"""Scheme 1."""
