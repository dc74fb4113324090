"""quantize/floats: keep fewer mantissa bits of values that stay floats, such as biases, gains and shifts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.same import same_form
from cortado.task.task import Task

FLOAT32_MANTISSA = 23


@dataclass(frozen=True)
class QuantizeFloats(Method):
    """Round floats to `mantissa` bits after the leading one; the relative error is at most 2^-(mantissa + 1).

    The values stay float32 with trailing zeros, which cost nothing in the file; 7 bits give bfloat16. Gains of norms
    span orders of magnitude within a layer, where a uniform grid would lose the small ones. Applies to all vectors by
    default; name matrices with `where`.
    """

    lossy = True
    needs = (
        Need(
            "a vector, or a weight named by where, with more mantissa bits",
            lambda method, view, task: any(not same_form(w.form, method.form_of(w)) for w in method.chosen(view)),
            "lower mantissa",
        ),
    )
    leaves = (Leaves.FLOATS,)

    where: str = knob("*.bias, *.weight", help="which parameters: patterns of their names")
    mantissa: int = knob(7, low=1, high=22, help="bits kept after the leading one")

    def apply(self, view: View, task: Task) -> None:
        for weight in self.chosen(view):
            weight.set_form(self.form_of(weight))

    def chosen(self, view: View) -> list[Weight]:
        """Return what `where` selects, by default all vectors."""
        if self.where != type(self).where:
            return view.weights(self.where)
        return [weight for weight in view.all_weights if len(weight.shape) < 2 and weight.real]

    def form_of(self, weight: Weight) -> Form:
        """Return the form of a weight with fewer mantissa bits."""
        return weight.form.map_values(self.rounded)

    def rounded(self, values: Tensor) -> Form:
        if values.dtype != torch.float32:
            raise BadNetwork(
                f"quantize/floats: only float32 can be rounded, got {values.dtype}. Exclude these weights with where."
            )
        return Dense(round_mantissa(values, self.mantissa))


def round_mantissa(values: Tensor, mantissa: int) -> Tensor:
    """Round float32 values to the nearest (ties to even) with `mantissa` bits."""
    drop = FLOAT32_MANTISSA - mantissa
    raw = values.contiguous().view(torch.int32)
    odd = (raw >> drop) & 1
    return ((raw + (1 << (drop - 1)) - 1 + odd) >> drop << drop).view(torch.float32)
