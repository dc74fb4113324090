"""LowRank: a weight as two kernels that run in sequence, each in its own form."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Factors, Form
from cortado.parts.part import PART, Arrays

LARGEST_RANK = 2**24


class LowRank(Form):
    """`first` (rank, inputs, ...), then `last` (outputs, rank, ...); longer chains nest.

    On each kernel axis at most one of the two is larger than 1, so together they make one kernel of the weight's
    shape. A matrix is a kernel without such axes (U V, Denton et al., 2014); a d x 1 kernel before a 1 x d one is
    Jaderberg et al., 2014. A factor with groups is a grouped kernel, as PyTorch stores it: `first_groups` and
    `last_groups` are those of the layers that run them, `groups` those of the weight itself, which divide both.
    """

    facts = ("rank", "axes", "groups", "first_groups", "last_groups")
    arrays = {"first": PART, "last": PART}
    first: Form
    last: Form

    def __init__(self, first: Form, last: Form, groups: int = 1, first_groups: int = 1, last_groups: int = 1) -> None:
        """`first`: (rank, inputs / first_groups, ...); `last`: (outputs, rank / last_groups, ...).  Raises BadValue."""
        super().__init__()
        check_factors(first, last, groups, first_groups, last_groups)
        self.first, self.last = first, last
        self.groups, self.first_groups, self.last_groups = groups, first_groups, last_groups

    @property
    def rank(self) -> int:
        """Return the number of channels between the two kernels."""
        return self.first.shape[0]

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        kernel = [max(sizes) for sizes in zip(self.first.shape[2:], self.last.shape[2:], strict=True)]
        return torch.Size([self.last.shape[0], self.first.shape[1] * self.first_groups // self.groups, *kernel])

    def dense(self) -> Tensor:
        return compose(self.first.dense(), self.last.dense(), self.groups, self.first_groups, self.last_groups)

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        return self.of(self.first.map_values(fn), self.last.map_values(fn))

    def of(self, first: Form, last: Form, factor: tuple[int, int] = (1, 1)) -> "LowRank":
        """Return the same form with other factors; all group counts are multiplied by factor[0] / factor[1]."""
        up, down = factor
        counts = (self.groups, self.first_groups, self.last_groups)
        return LowRank(first, last, *(count * up // down for count in counts))

    def narrow(self, axis: int, keep: Tensor) -> Form:
        """Cut outputs from the last factor, inputs from the first; return a dense weight if groups are cut unevenly."""
        if axis == 0:
            made = self.fewer_outputs(keep)
        elif axis == 1:
            made = self.fewer_inputs(keep)
        elif self.last.shape[axis] > 1:
            made = self.of(self.first, self.last.narrow(axis, keep))
        else:
            made = self.of(self.first.narrow(axis, keep), self.last)
        return made or Dense(self.dense().detach().index_select(axis, keep))

    def fewer_outputs(self, keep: Tensor) -> "LowRank | None":
        if self.last_groups == 1:
            return self.of(self.first, self.last.narrow(0, keep))
        if self.first_groups == 1:
            # Each group of the last factor reads its own rank rows: cut those of the removed groups as well.
            kept = whole_groups(keep, self.shape[0], self.last_groups)
            if kept is None:
                return None
            rows = members(kept, self.rank // self.last_groups)
            return LowRank(self.first.narrow(0, rows), self.last.narrow(0, keep), last_groups=len(kept))
        kept = whole_groups(keep, self.shape[0], self.groups) if self.groups > 1 else None
        if kept is None:
            return None
        rows = members(kept, self.rank // self.groups)
        return self.of(self.first.narrow(0, rows), self.last.narrow(0, keep), (len(kept), self.groups))

    def fewer_inputs(self, keep: Tensor) -> "LowRank | None":
        if self.first_groups == self.groups:
            return self.of(self.first.narrow(1, keep), self.last)
        kept = whole_groups(keep, self.shape[1], self.first_groups)
        if self.last_groups > 1 or kept is None:
            return None
        rows = members(kept, self.rank // self.first_groups)
        return LowRank(self.first.narrow(0, rows), self.last.narrow(1, rows), first_groups=len(kept))

    def bits(self) -> float:
        return self.first.bits() + self.last.bits()

    def entries(self) -> int:
        return self.first.entries() + self.last.entries()

    def nonzeros(self) -> int:
        return self.first.nonzeros() + self.last.nonzeros()

    def multiply_adds(self, before: Sequence[int], after: Sequence[int]) -> int:
        """Return the multiply-adds of the factors for one sample with `before` input and `after` output positions."""
        return run_cost(self, before, after)

    def factors(self) -> Factors:
        return Factors(self.first, self.last, self.groups, self.first_groups, self.last_groups, self.of)

    def code_bits(self) -> int | None:
        widths = [width for one in (self.first, self.last) if (width := one.code_bits()) is not None]
        return max(widths, default=None)

    def spec(self) -> dict[str, int]:
        """Return the facts; `axes` has bit a set where kernel axis a belongs to the first factor."""
        axes = sum(1 << axis for axis, size in enumerate(self.first.shape[2:]) if size > 1)
        counts = {"groups": self.groups, "first_groups": self.first_groups, "last_groups": self.last_groups}
        return {"rank": self.rank, "axes": axes, **counts}

    def parts(self) -> Arrays:
        return {"first": self.first, "last": self.last}

    @classmethod
    def inner_shapes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, torch.Size]:
        rank, groups, first, last = (spec[name] for name in ("rank", "groups", "first_groups", "last_groups"))
        if len(shape) < 2 or not 1 <= rank <= LARGEST_RANK or not 0 <= spec["axes"] < 1 << (len(shape) - 2):
            raise BadValue(f"forms/low_rank: rank {rank} with {spec} does not fit a weight of {tuple(shape)}.")
        inputs = shape[1] * groups
        fits = groups >= 1 and first >= 1 and last >= 1 and first % groups == 0 and last % groups == 0
        if not fits or inputs % first or rank % first or rank % last or shape[0] % last:
            raise BadValue(
                f"forms/low_rank: groups {groups}, {first}, {last} do not divide {tuple(shape)}, rank {rank}."
            )
        bits = [spec["axes"] >> axis & 1 for axis in range(len(shape) - 2)]
        one = [size if bit else 1 for size, bit in zip(shape[2:], bits, strict=True)]
        other = [1 if bit else size for size, bit in zip(shape[2:], bits, strict=True)]
        return {
            "first": torch.Size([rank, inputs // first, *one]),
            "last": torch.Size([shape[0], rank // last, *other]),
        }

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "LowRank":
        made = cls(parts["first"], parts["last"], spec["groups"], spec["first_groups"], spec["last_groups"])
        if made.shape != shape:
            raise BadValue(f"forms/low_rank: the factors make {tuple(made.shape)}, the weight is {tuple(shape)}.")
        return made

    def finalize(self) -> Form:
        return self.of(self.first.finalize(), self.last.finalize())

    def scale_rows(self, factors: Tensor) -> bool:
        return self.last.scale_rows(factors)


def run_cost(form: Form, before: Sequence[int], after: Sequence[int]) -> int:
    """Return the multiply-adds of a kernel, or of the factors it runs as, for one sample at these positions.

    A kernel axis, with its stride, belongs to the factor that has it, or to the first where none does.
    """
    factors = form.factors()
    if factors is None:
        return form.shape.numel() * prod(after)
    split = zip(factors.last.shape[2:], before, after, strict=True)
    between = [old if size > 1 else new for size, old, new in split]
    return run_cost(factors.first, before, between) + run_cost(factors.last, between, after)


def check_factors(first: Form, last: Form, groups: int, first_groups: int, last_groups: int) -> None:
    """Raise BadValue where two kernels cannot run in sequence."""
    one, two = first.shape, last.shape
    if len(one) < 2 or len(one) != len(two):
        raise BadValue(f"forms/low_rank: factors are kernels of at least two axes, got {tuple(one)} and {tuple(two)}.")
    if min(groups, first_groups, last_groups) < 1 or first_groups % groups or last_groups % groups:
        raise BadValue(
            f"forms/low_rank: {groups} groups must divide those of the factors, {first_groups}, {last_groups}."
        )
    if one[0] % first_groups or two[0] % last_groups or two[1] * last_groups != one[0]:
        raise BadValue(
            f"forms/low_rank: the first factor gives {one[0]} channels in {first_groups} groups, the last one reads "
            f"{two[1] * last_groups} in {last_groups}. Both must equal the rank."
        )
    if any(min(sizes) > 1 for sizes in zip(one[2:], two[2:], strict=True)):
        raise BadValue(f"forms/low_rank: a kernel axis belongs to one factor, got {tuple(one)} and {tuple(two)}.")
    for form, count in ((first, first_groups), (last, last_groups)):
        inner = form.factors()
        if inner is not None and inner.groups != count:
            raise BadValue(
                f"forms/low_rank: a factor of {inner.groups} groups is run with {count}. Pass its own group count."
            )


def compose(first: Tensor, last: Tensor, groups: int = 1, first_groups: int = 1, last_groups: int = 1) -> Tensor:
    """Return the kernel (outputs, inputs / groups, ...) equivalent to `first` followed by `last`."""
    one, two = in_blocks(first, groups, first_groups), in_blocks(last, groups, last_groups)
    rank, inputs, outputs, axes = one.shape[1], one.shape[2], two.shape[1], first.dim() - 2
    product = two.movedim(2, -1).reshape(groups, -1, rank) @ one.reshape(groups, rank, -1)
    laid = product.view(groups, outputs, *last.shape[2:], inputs, *first.shape[2:])
    order = [0, 1, 2 + axes] + [place for axis in range(axes) for place in (2 + axis, 3 + axes + axis)]
    kernel = [max(sizes) for sizes in zip(first.shape[2:], last.shape[2:], strict=True)]
    return laid.permute(order).reshape(groups * outputs, inputs, *kernel)


def in_blocks(kernel: Tensor, outer: int, groups: int) -> Tensor:
    """Return a grouped kernel as (outer, rows, columns, ...), with zeros between each outer group's inner groups."""
    inner, rows, columns, rest = groups // outer, kernel.shape[0] // groups, kernel.shape[1], kernel.shape[2:]
    if inner == 1:
        return kernel.reshape(outer, rows, columns, *rest)
    own = torch.eye(inner, dtype=kernel.dtype, device=kernel.device).view(1, inner, 1, inner, 1, *[1] * len(rest))
    spread = own * kernel.reshape(outer, inner, rows, 1, columns, *rest)
    return spread.reshape(outer, inner * rows, inner * columns, *rest)


def whole_groups(keep: Tensor, count: int, groups: int) -> Tensor | None:
    """Return the groups that make up `keep` if it takes whole groups in order, else None."""
    size = count // groups
    if size == 0 or len(keep) % size:
        return None
    kept = keep[::size] // size
    return kept if torch.equal(members(kept, size), keep) else None


def members(groups: Tensor, size: int) -> Tensor:
    """Return the indices of the members of these groups."""
    return (groups[:, None] * size + torch.arange(size, device=groups.device)).flatten()
