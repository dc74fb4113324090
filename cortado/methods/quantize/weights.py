"""quantize/weights: round weights to a uniform grid with few levels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need, some_differ
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.form import Form
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeWeights(Method):
    """Round to the nearest of 2**bits levels: weight = (code - zero) x scale.  Jacob et al., 2018.

    Each tensor, output channel, or group of neighbours in a channel's row has one scale. Masks stay: the remaining
    weights are rounded as one tensor. `clip: mse` picks the range with the least squared error instead of the full one.
    A later `finetune` keeps the codes and trains the scales; after `quantize/aware` it trains the weights themselves.
    """

    lossy = True
    needs = (
        Need(
            "a weight that does not lie on this grid yet",
            lambda method, view, task: some_differ(view.weights(method.where), method.on_grid),
            "choose fewer bits",
        ),
    )
    leaves = (Leaves.CODES,)

    bits: int = knob(8, low=1, high=8, help="bits of a code")
    per: str = knob("channel", one_of=("tensor", "channel", "group"), help="granularity of the scales")
    group: int = knob(64, low=1, help="neighbours that share a scale, with per: group")
    symmetric: bool = knob(True, help="grid symmetric around zero; otherwise with a zero point")
    clip: str = knob("mse", one_of=("range", "mse"), help="range of the grid: all values, or least squared error")

    def apply(self, view: View, task: Task) -> None:
        for weight in view.weights(self.where):
            weight.set_form(self.on_grid(weight))

    def on_grid(self, weight: Weight) -> Form:
        """Return the form of a weight on the grid."""
        form = weight.form
        made = form.map_values(self.rounded)
        # Values already on this grid stay exact: a recomputed scale may be off by one bit.
        same = type(form) is type(made) and form.bits() == made.bits()
        return form if same and torch.allclose(made.dense(), form.dense(), rtol=1e-6, atol=0.0) else made

    def rounded(self, values: Tensor) -> Form:
        # A vector (a bias, or a mask's remaining weights) has no rows and gets one scale.
        per = self.per if values.dim() > 1 else "tensor"
        return Quantized.of(values, self.bits, per, self.group if per == "group" else 0, self.symmetric, self.clip)
