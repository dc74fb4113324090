"""Ternary: a latent weight used as three values, two of them learned."""

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.form import Form
from cortado.parts.forms.latent import Latent, straight
from cortado.parts.part import FLOATS, Arrays

SMALLEST = 1e-6


class Ternary(Latent):
    """-Wn, 0 or +Wp: trained ternary quantization (Zhu et al., 2017), one pair of scales per tensor.

    Values smaller than `threshold` times the largest are zero. A scale's gradient is the sum over its members divided
    by the root of the number of weights: with the plain sum, a learning rate that suits the weights makes the scales
    of large layers overshoot zero (as Esser et al., 2020, found for steps). A latent value's gradient is the
    weight's, times its scale, or times 1 where it is zero.
    """

    arrays = {"values": FLOATS, "threshold": FLOATS, "scales": FLOATS}
    threshold: Tensor

    def __init__(self, values: Tensor, threshold: float | Tensor = 0.05, scales: Tensor | None = None) -> None:
        """`scales`: (Wp, Wn); the mean magnitudes on both sides when None.  Raises BadValue."""
        super().__init__(values)
        limit = torch.as_tensor(threshold, dtype=values.dtype, device=values.device).reshape(1)
        if not 0.0 <= float(limit) < 1.0:
            raise BadValue(
                "forms/ternary: threshold is a share of the largest value and must be at least 0 and below 1, "
                f"got {float(limit):g}."
            )
        self.register_buffer("threshold", limit)
        above, below = self.sides()
        if scales is None:
            scales = torch.stack([self.values.detach()[side].abs().mean().nan_to_num(1.0) for side in (above, below)])
        self.scales = nn.Parameter(scales.detach().clone().reshape(2))

    def sides(self) -> tuple[Tensor, Tensor]:
        """Return the masks of the values used as +Wp and as -Wn."""
        values = self.values.detach()
        limit = self.threshold * (values.abs().max() if values.numel() else 0.0)
        return values > limit, values < -limit

    def rounded(self) -> Tensor:
        above, below = self.sides()
        scales = straight(self.scales, self.scales / max(1, self.values.numel()) ** 0.5)
        seen = torch.where(above, scales[0], torch.where(below, -scales[1], torch.zeros_like(self.values)))
        factor = torch.where(above, scales[0], torch.where(below, scales[1], 1.0)).detach()
        return seen + (self.values - self.values.detach()) * factor

    def after_step(self) -> None:
        with torch.no_grad():
            self.scales.clamp_(min=SMALLEST)

    def attached(self) -> Form:
        above, below = self.sides()
        scales = self.scales.detach()
        codebook = torch.stack([-scales[1], torch.zeros_like(scales[0]), scales[0]])
        return Codebook(codebook, 1 + above.int() - below.int())

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        return {"threshold": 1, "scales": 2}

    def parts(self) -> Arrays:
        return {"values": self.values.detach(), "threshold": self.threshold, "scales": self.scales.detach()}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Ternary":
        return cls(parts["values"].reshape(shape), parts["threshold"], parts["scales"])
