"""quantize/weights: round weights to few levels on an even grid."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.method import Method, knob
from cortado.network.view import View
from cortado.parts.forms.form import Form
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeWeights(Method):
    """Round to the nearest of 2**bits levels: weight = (code - zero) x scale.  Jacob et al., 2018.

    One scale serves a tensor, an output channel, or a group of neighbours in a channel's row. Masks stay: survivors
    are rounded, as one tensor. `clip` "mse" takes the span with the least squared error instead of the full range.
    """

    lossy = True

    bits: int = knob(8, low=1, high=8, help="bits of a code")
    per: str = knob("channel", one_of=("tensor", "channel", "group"), help="what one scale serves")
    group: int = knob(64, low=1, help="neighbours that share a scale, with per: group")
    symmetric: bool = knob(True, help="zero in the middle; else a zero point of its own")
    clip: str = knob("mse", one_of=("range", "mse"), help="span of the levels: all values, or least squared error")

    def apply(self, view: View, task: Task) -> None:
        for weight in view.weights(self.where):
            form, values = weight.form, weight.dense()
            weight.map_values(self.rounded)
            # Values on this very grid stay to the last bit: a scale worked out again may be off by one.
            same = type(form) is type(weight.form) and form.bits() == weight.form.bits()
            if same and torch.allclose(weight.dense(), values, rtol=1e-6, atol=0.0):
                weight.set_form(form)

    def rounded(self, values: Tensor) -> Form:
        # A vector (a bias, or the survivors of a mask) has no rows: one scale serves it.
        per = self.per if values.dim() > 1 else "tensor"
        return Quantized.of(values, self.bits, per, self.group if per == "group" else 0, self.symmetric, self.clip)
