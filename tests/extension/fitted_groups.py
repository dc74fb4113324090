"""A user's method: 4-bit weights in groups whose scales are fitted by least squares.  After Anwar, Hwang, Sung, 2015."""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from cortado import Method, knob
from cortado.parts.forms.quantized import Quantized


@dataclass(frozen=True)
class FittedGroups(Method):
    """Round groups of neighbours in a row to 2**bits - 1 levels; alternate between codes and the scale of least error."""

    lossy = True

    bits: int = knob(4, low=2, high=8, help="bits of a code")
    group: int = knob(32, low=1, help="neighbours in a row that share a scale")
    rounds: int = knob(20, low=1, help="rounds of fitting")

    def apply(self, view, task):
        for weight in view.weights(self.where):
            if len(weight.shape) > 1:
                weight.map_values(self.rounded)

    def rounded(self, values):
        if values.dim() < 2:
            return Quantized.of(values, self.bits)
        group, top = min(self.group, values[0].numel()), 2 ** (self.bits - 1) - 1
        rows = values.flatten(1)
        rows = pad(rows, (0, -rows.shape[1] % group)).view(len(rows), -1, group)
        scale = rows.abs().amax(2, keepdim=True).clamp(min=1e-12) / top
        for _ in range(self.rounds):
            codes = (rows / scale).round().clamp(-top, top)
            # The least squares solution for these codes; a group of zeros keeps its scale.
            fitted = (rows * codes).sum(2, keepdim=True) / codes.square().sum(2, keepdim=True).clamp(min=1)
            scale = torch.where(fitted > 0, fitted, scale)
        codes = (rows / scale).round().clamp(-top, top).flatten(1)[:, : values[0].numel()]
        return Quantized(codes.view(values.shape), scale.flatten(), layout="group", group=group)
