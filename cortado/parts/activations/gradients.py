"""Gradients: pass an activation unchanged and quantize its gradient, during training."""

from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.activations.quantizer import ActivationQuantizer
from cortado.parts.part import Arrays

MOST_BITS = 16
FLOAT_BITS = 32


class RoundedGradient(torch.autograd.Function):
    """Identity forward; backward, the gradient is rounded stochastically to 2**bits even levels, without bias."""

    @staticmethod
    def forward(context: Any, values: Tensor, bits: int) -> Tensor:  # type: ignore[override]
        context.bits = bits
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return stochastic(slope, context.bits), None


def noisy(values: Tensor, bits: int) -> Tensor:
    """Return the values unchanged, with a gradient rounded by `stochastic`."""
    made: Tensor = RoundedGradient.apply(values, bits)  # type: ignore[no-untyped-call]
    return made


def stochastic(slope: Tensor, bits: int) -> Tensor:
    """Return 2 m (q(d / 2m + 1/2 + N) - 1/2), m the largest |d| of a sample, q to 2**bits levels, N uniform noise of
    half a step.

    Zhou et al., 2016, equation 12. A vector or a scalar is one sample. The mean over the noise is the gradient.
    Computed in float32: bfloat16 would round the noise itself, to one side, and turn a zero into a sixteenth of a
    level.
    """
    given, slope = slope.dtype, slope.float()
    if not slope.numel():
        return slope.to(given)
    axes = tuple(range(1, slope.dim())) if slope.dim() > 1 else tuple(range(slope.dim()))
    most, top = slope.abs().amax(axes, keepdim=True), 2**bits - 1
    span = 2 * torch.where(most > 0, most, torch.ones_like(most))
    share = (slope / span + 0.5) * top + torch.rand_like(slope) - 0.5
    return torch.where(most > 0, span * (share.round().clamp(0, top) / top - 0.5), slope).to(given)


class Gradients(ActivationQuantizer):
    """DoReFa's gradients (Zhou et al., 2016): the gradient of a layer's output has `bits` bits.

    Active only in training mode; finalizing removes it.
    """

    facts = ("bits",)

    def __init__(self, bits: int) -> None:
        """Raises BadValue for bits out of range."""
        super().__init__()
        if not 1 <= bits <= MOST_BITS:
            raise BadValue(f"activations/gradients: bits must lie in 1..{MOST_BITS}, got {bits}.")
        self.width = bits

    def forward(self, values: Tensor) -> Tensor:
        return noisy(values, self.width) if self.training else values

    def finalize(self) -> None:
        return None

    def spec(self) -> dict[str, int]:
        return {"bits": self.width}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Gradients":
        return cls(spec["bits"])

    def bits(self) -> int:
        return FLOAT_BITS

    def extra_repr(self) -> str:
        return f"bits={self.width}"
