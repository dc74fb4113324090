"""Form: how one weight is held.  The waist of the house: methods make forms, tools read forms."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from cortado.parts.part import Part

FLOATS, INTEGERS, MASK, FORM = "floats", "integers", "mask", "form"

Arrays = dict[str, Any]
"""What a form is made of: names to tensors or to forms inside it."""


class Form(Part):
    """Holds one weight and gives it back.  Float parts are Parameters, so fine-tuning keeps the form.

    >>> small, report = cortado.compress(net, task, "prune/weights keep=0.5")
    >>> small[0].weight.shape == net[0].weight.shape
    True

    A form is described for the file by small facts (`spec`), arrays (`parts`: float tensors, integer tensors, bool
    masks, inner forms) and is made again by `from_parts`. `shape` is the shape of the weight. `facts` names the facts
    of every spec, `arrays` the parts with their sorts: FLOATS, INTEGERS or MASK (as many as the weight has entries,
    unless `sizes` says otherwise), or FORM (an inner form: one that `inner_shapes` names has the shape given there,
    any other is as large as the weight, and one that follows a mask fills its true places).
    """

    shape: torch.Size
    facts: ClassVar[tuple[str, ...]] = ()
    arrays: ClassVar[dict[str, str]] = {}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        """How many entries those parts have that are not as large as the weight.  Raises BadValue on a false spec."""
        return {}

    @classmethod
    def inner_shapes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, torch.Size]:
        """The shapes of those inner forms that are not as large as the weight.  Raises BadValue on a false spec."""
        return {}

    @abstractmethod
    def dense(self) -> Tensor:
        """The weight as a tensor, by plain torch operators: trains, traces and exports."""

    @abstractmethod
    def map_values(self, fn: Callable[[Tensor], "Form"]) -> "Form":
        """The same form with `fn` (Tensor -> Form) applied where the floats live."""

    @abstractmethod
    def narrow(self, axis: int, keep: Tensor) -> "Form":
        """The same form with only the indices `keep` (int64) along `axis`."""

    @abstractmethod
    def bits(self) -> float:
        """What it costs as held, before the file codes it."""

    @abstractmethod
    def spec(self) -> dict[str, int]:
        """Small facts, as integers."""

    @abstractmethod
    def parts(self) -> Arrays:
        """What `from_parts` needs besides the facts: tensors and inner forms."""

    @classmethod
    @abstractmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Form":
        """The form that `spec` and `parts` describe.  Raises BadValue when they contradict one another."""

    def finalize(self) -> "Form":
        """This form as it is kept: what was latent for training becomes final, inside too."""
        return self

    def scale_rows(self, factors: Tensor) -> bool:
        """Multiply row i (axis 0) of the weight by factors[i] if this form can, in place; say whether it could."""
        return False

    def nonzeros(self) -> int:
        """How many entries of the weight are not zero."""
        with torch.no_grad():
            return int(torch.count_nonzero(self.dense()))
