"""Form: the representation of one weight.  Methods make forms, tools read forms."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from cortado.parts.part import Part

FLOATS, INTEGERS, MASK, FORM = "floats", "integers", "mask", "form"

Arrays = dict[str, Any]
"""The content of a form: names to tensors or to inner forms."""


class Form(Part):
    """Holds one weight and returns it as a tensor.  Float parts are Parameters, so fine-tuning keeps the form.

    >>> small, report = cortado.compress(net, task, "prune/weights keep=0.5")
    >>> small[0].weight.shape == net[0].weight.shape
    True

    A form is described for the file by small facts (`spec`) and arrays (`parts`: float tensors, integer tensors, bool
    masks, inner forms); `from_parts` rebuilds it. `shape` is the shape of the weight. `facts` names the facts of
    every spec, `arrays` the parts with their sorts: FLOATS, INTEGERS or MASK (with as many entries as the weight,
    unless `sizes` says otherwise), or FORM (an inner form with the shape given by `inner_shapes`, else the weight's;
    one that follows a mask fills its true places).
    """

    shape: torch.Size
    facts: ClassVar[tuple[str, ...]] = ()
    arrays: ClassVar[dict[str, str]] = {}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        """Return the entry counts of parts unlike the weight in size.  Raises BadValue for an invalid spec."""
        return {}

    @classmethod
    def inner_shapes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, torch.Size]:
        """Return the shapes of inner forms that differ from the weight's.  Raises BadValue for an invalid spec."""
        return {}

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the weight as a tensor, computed with torch operators: it trains, traces and exports."""

    @abstractmethod
    def map_values(self, fn: Callable[[Tensor], "Form"]) -> "Form":
        """Return the same form with `fn` (Tensor -> Form) applied to its float values."""

    @abstractmethod
    def narrow(self, axis: int, keep: Tensor) -> "Form":
        """Return the same form with only the indices `keep` (int64) along `axis`."""

    @abstractmethod
    def bits(self) -> float:
        """Return the size in bits of this representation before entropy coding."""

    @abstractmethod
    def spec(self) -> dict[str, int]:
        """Return small facts, as integers."""

    @abstractmethod
    def parts(self) -> Arrays:
        """Return the tensors and inner forms that `from_parts` needs besides the facts."""

    @classmethod
    @abstractmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Form":
        """Return the form that `spec` and `parts` describe.  Raises BadValue when they contradict each other."""

    def finalize(self) -> "Form":
        """Return the form after training: latent values become final, inner forms included."""
        return self

    def scale_rows(self, factors: Tensor) -> bool:
        """Multiply row i (axis 0) of the weight by factors[i] in place; return whether this form can."""
        return False

    def nonzeros(self) -> int:
        """Return the number of nonzero entries of the weight."""
        with torch.no_grad():
            return int(torch.count_nonzero(self.dense()))
