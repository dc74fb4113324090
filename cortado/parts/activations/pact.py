"""Pact: an activation clipped between zero and a learned bound, during training."""

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.activations.affine import LARGEST_BITS, Affine
from cortado.parts.activations.quantizer import ActivationQuantizer
from cortado.parts.part import FLOATS, Arrays

SMALLEST = 1e-6


class Pact(ActivationQuantizer):
    """Clip at 0 and at a learned bound, with 2**bits even levels between: PACT (Choi et al., 2018).

    The bound's gradient is the sum over the values clipped there; the activation's gradient passes between both ends.
    The training's weight decay shrinks the bound.
    """

    facts = ("bits",)
    arrays = {"end": FLOATS}

    def __init__(self, end: float | Tensor, bits: int) -> None:
        """Raises BadValue for bits out of range or a bound that is not above 0."""
        super().__init__()
        made = torch.as_tensor(end, dtype=torch.float32).reshape(1)
        if not 1 <= bits <= LARGEST_BITS or not bool(torch.isfinite(made).all() and (made > 0).all()):
            raise BadValue(
                f"activations/pact: bits must lie in 1..{LARGEST_BITS} and the end above 0, got {bits}, {float(made):g}."
            )
        self.width = bits
        self.end = nn.Parameter(made.detach().clone())

    def forward(self, values: Tensor) -> Tensor:
        end = self.end.clamp(min=SMALLEST).to(values.dtype)
        step = end / (2**self.width - 1)
        clipped = torch.minimum(values.clamp(min=0), end)
        return clipped + ((clipped / step).round() * step - clipped).detach()

    def finalize(self) -> ActivationQuantizer:
        return Affine(self.end.detach().clamp(min=SMALLEST) / (2**self.width - 1), 0, self.width)

    def spec(self) -> dict[str, int]:
        return {"bits": self.width}

    def parts(self) -> Arrays:
        return {"end": self.end.detach().clamp(min=SMALLEST)}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Pact":
        return cls(parts["end"], spec["bits"])

    def bits(self) -> int:
        return self.width

    def ends(self) -> tuple[float, float]:
        return 0.0, float(self.end.detach().clamp(min=SMALLEST))

    def extra_repr(self) -> str:
        return f"bits={self.width}"
