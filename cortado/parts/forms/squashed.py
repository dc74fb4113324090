"""Squashed: a latent weight squashed into -1..1 and rounded to a few even levels."""

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.latent import Latent, signs, straight
from cortado.parts.forms.quantized import Quantized
from cortado.parts.part import FLOATS, Arrays

MOST_BITS = 8


class Squashed(Latent):
    """DoReFa's weights (Zhou et al., 2016): 2 q(tanh(w) / (2 max |tanh(w)|) + 1/2) - 1, with 2**bits levels.

    With one bit it is the sign times the mean magnitude. The levels of k bits are odd multiples of 1 / (2**k - 1):
    none is zero.
    """

    facts = ("bits",)
    arrays = {"values": FLOATS}

    def __init__(self, values: Tensor, bits: int) -> None:
        """Raises BadValue for bits out of range."""
        super().__init__(values)
        if not 1 <= bits <= MOST_BITS:
            raise BadValue(f"forms/squashed: bits must lie in 1..{MOST_BITS}, got {bits}.")
        self.width = bits

    def levels(self) -> Tensor:
        """Return the values squashed into +- (2**bits - 1), where the levels are the odd numbers."""
        flat = self.values.tanh()
        most = flat.detach().abs().max().clamp(min=1e-12) if flat.numel() else 1.0
        return flat / most * (2**self.width - 1)

    def scale(self) -> Tensor:
        """Return the distance of 0 from the least level, (1,)."""
        return self.values.new_tensor([1 / (2**self.width - 1)])

    def rounded(self) -> Tensor:
        if self.width == 1:
            return straight(signs(self.values), self.values) * self.values.abs().mean().detach()
        levels, top = self.levels(), 2**self.width - 1
        # Times the scale of the final form: a division may differ in the last bit.
        return straight(2 * ((levels + top) / 2).round() - top, levels) * self.scale()

    def attached(self) -> Form:
        if self.width == 1:
            return Quantized(signs(self.values.detach()), self.values.detach().abs().mean().reshape(1))
        top = 2**self.width - 1
        codes = 2 * ((self.levels().detach() + top) / 2).round() - top
        return Quantized(codes, self.scale())

    def spec(self) -> dict[str, int]:
        return {"bits": self.width}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        if not 1 <= spec["bits"] <= MOST_BITS:
            raise BadValue(f"forms/squashed: bits must lie in 1..{MOST_BITS}, got {spec['bits']}.")
        return {}

    def parts(self) -> Arrays:
        return {"values": self.values.detach()}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Squashed":
        return cls(parts["values"].reshape(shape), spec["bits"])
