"""Unit: an activation in 0..1 on a fixed grid, during training."""

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.activations.affine import LARGEST_BITS, Affine, exact, on_grid
from cortado.parts.activations.gradients import MOST_BITS, noisy
from cortado.parts.activations.quantizer import ActivationQuantizer
from cortado.parts.part import Arrays


class Unit(ActivationQuantizer):
    """DoReFa's activations (Zhou et al., 2016): clip to 0..1, then round to the nearest of 2**bits even levels.

    The gradient passes inside. With `gradients` bits above 0 it is rounded first, as by `Gradients`, for the output
    of a layer.
    """

    facts = ("bits", "gradients")

    def __init__(self, bits: int, gradients: int = 0) -> None:
        """Raises BadValue for bits out of range."""
        super().__init__()
        if not 1 <= bits <= LARGEST_BITS or not 0 <= gradients <= MOST_BITS:
            raise BadValue(
                f"activations/unit: bits must lie in 1..{LARGEST_BITS} and gradients in 0..{MOST_BITS}, "
                f"got {bits} and {gradients}."
            )
        self.width, self.gradients = bits, gradients

    def forward(self, values: Tensor) -> Tensor:
        top = 2**self.width - 1
        clipped = values.clamp(0, 1)
        step = values.new_full((), 1 / top, dtype=exact(values))
        rounded = on_grid(clipped.detach(), step, torch.zeros_like(step), torch.full_like(step, top))
        made = clipped + (rounded - clipped).detach()
        return noisy(made, self.gradients) if self.gradients and self.training else made

    def finalize(self) -> ActivationQuantizer:
        return Affine(1 / (2**self.width - 1), 0, self.width)

    def spec(self) -> dict[str, int]:
        return {"bits": self.width, "gradients": self.gradients}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Unit":
        return cls(spec["bits"], spec["gradients"])

    def bits(self) -> int:
        return self.width

    def ends(self) -> tuple[float, float]:
        return 0.0, 1.0

    def extra_repr(self) -> str:
        return f"bits={self.width}, gradients={self.gradients}"
