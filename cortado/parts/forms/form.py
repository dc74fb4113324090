"""Form: the representation of one weight.  Methods make forms, tools read forms."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cortado.parts.forms.lattice import Lattice
from cortado.parts.forms.states import Course
from cortado.parts.part import Part


class Form(Part):
    """Holds one weight and returns it as a tensor.  Float arrays are Parameters, so fine-tuning keeps the form.

    >>> small, report = cortado.compress(net, task, "prune/weights keep=0.5")
    >>> small[0].weight.shape == net[0].weight.shape
    True

    `shape` is the shape of the weight. Arrays are FLOATS, INTEGERS or MASK (with as many entries as the weight, unless
    `sizes` says otherwise), or PART (an inner form with the shape given by `inner_shapes`, else the weight's; one that
    follows a mask fills its true places). Tools ask a form by `select`, `support`, `lattice`, `symbols`, `code_bits` and
    `factors`, and never for its class.
    """

    shape: torch.Size
    only_floats: ClassVar[bool] = False
    """Whether every entry is a float of its own."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the weight as a tensor, computed with torch operators: it trains, traces and exports."""

    @abstractmethod
    def map_values(self, fn: Callable[[Tensor], "Form"]) -> "Form":
        """Return the same form with `fn` (Tensor -> Form) applied to its float values."""

    def refill(self, values: Tensor, fill: Callable[[Tensor, "Form"], "Form"]) -> "Form":
        """Return what `fill` makes of new values (shape of the weight) and this form; of its base, if filters share one."""
        return fill(values, self)

    @abstractmethod
    def narrow(self, axis: int, keep: Tensor) -> "Form":
        """Return the same form with only the indices `keep` (int64) along `axis`."""

    @abstractmethod
    def bits(self) -> float:
        """Return the size in bits of this representation before entropy coding."""

    def select(self, mask: Tensor) -> "Form | None":
        """Return the same form with zeros outside `mask` (bool, shape of the weight); None if it cannot have single zeros."""
        return None

    def support(self) -> Tensor | None:
        """Return which entries may be other than zero (bool, shape of the weight); None if all may."""
        return None

    def lattice(self) -> Lattice | None:
        """Return the integers of the weight and their grid; None if its values lie on no even grid."""
        return None

    def symbols(self) -> tuple[Tensor, int] | None:
        """Return whole numbers for the entries, and the bits of the table that gives their values; None if there are none.

        0 is a weight of zero, and equal numbers are equal values wherever they share a table.
        """
        return None

    def course(self) -> Course | None:
        """Return how the grids of its codes follow one another; None if they do not depend on each other."""
        return None

    def code_bits(self) -> int | None:
        """Return the bits of the widest code in it; None if nothing in it has codes."""
        return None

    def float_levels(self) -> Tensor | None:
        """Return the values that training rounds to an even grid, in steps of the grid and with a gradient; None without any."""
        return None

    def factors(self) -> "Factors | None":
        """Return the two kernels that make the weight, run in sequence; None if it is one kernel."""
        return None

    def tied(self, axis: int) -> Tensor | None:
        """Return a number for each index along `axis`: equal where indices are stored as one. None if each stands alone."""
        return None

    def pooled(self, importance: Tensor) -> Tensor:
        """Return the importance of entries (shape of the weight), summed where several are one stored number."""
        return importance

    def finalize(self) -> "Form":
        """Return the form after training: latent values become final, inner forms included."""
        return self

    def scale_rows(self, factors: Tensor) -> bool:
        """Multiply row i (axis 0) of the weight by factors[i] in place; return whether this form can."""
        return False

    def entries(self) -> int:
        """Return how many entries the weight is made of: its own, or those of its factors or base filters; zeros count."""
        return self.shape.numel()

    def nonzeros(self) -> int:
        """Return how many of its `entries` are not zero."""
        with torch.no_grad():
            return int(torch.count_nonzero(self.dense()))


@dataclass(frozen=True, eq=False)
class Factors:
    """A weight as `first`, then `last`; `groups` of the weight and of the layers that run each kernel.

    `remade(first, last)` is the form of the weight with other kernels of the same group counts. `fixed`: the last kernel
    follows from the form, and no method changes it.
    """

    first: Form
    last: Form
    groups: int
    first_groups: int
    last_groups: int
    remade: Callable[[Form, Form], Form]
    fixed: bool = False

    @property
    def rank(self) -> int:
        """Return the number of channels between the two kernels."""
        return self.first.shape[0]
