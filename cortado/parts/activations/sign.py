"""Sign: keeps only the signs of an activation."""

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.activations.quantizer import ActivationQuantizer
from cortado.parts.part import Arrays

MOST_TERMS = 8


class Sign(ActivationQuantizer):
    """-1 below zero, +1 from zero on; the gradient passes inside -1..1: BinaryNet (Courbariaux and Bengio, 2016).

    `scaled` multiplies a sample's signs by the mean magnitude of its values, like XNOR-Net's input scale (Rastegari
    et al., 2016) but with one number for all positions. `terms` above 1 adds the signs of the residual, scaled
    likewise: more binary products, less error (Tang et al., 2017). `smooth` gives the gradient the shape of a tent, 2
    - 2|x| (Bi-Real Net, Liu et al., 2018), a closer approximation of the sign's.
    """

    facts = ("scaled", "smooth", "terms")

    def __init__(self, scaled: bool = False, smooth: bool = False, terms: int = 1) -> None:
        """Raises BadValue for terms out of range, and for several terms without `scaled`."""
        super().__init__()
        if not 1 <= terms <= MOST_TERMS or (terms > 1 and not scaled):
            raise BadValue(
                f"activations/sign: terms must lie in 1..{MOST_TERMS}, above 1 only with scaled; got {terms}, {scaled}."
            )
        self.scaled, self.smooth, self.terms = scaled, smooth, terms

    def forward(self, values: Tensor) -> Tensor:
        left, total = values, torch.zeros_like(values)
        for _ in range(self.terms):
            part = self.signs(left)
            if self.scaled:
                # A vector or a scalar is one sample.
                axes = tuple(range(1, values.dim())) if values.dim() > 1 else None
                part = part * (left.abs().mean(axes, keepdim=True) if axes else left.abs().mean())
            total, left = total + part, left - part.detach()
        return total

    def signs(self, values: Tensor) -> Tensor:
        hard = torch.where(values < 0, -1.0, 1.0).to(values.dtype)
        if not torch.is_grad_enabled():
            return hard
        inside = values.clamp(-1, 1)
        # The integral of the tent, which ends at -1 and 1 like the sign.
        seen = inside * (2 - inside.abs()) if self.smooth else inside
        return seen + (hard - seen).detach()

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Sign":
        if spec["scaled"] > 1 or spec["smooth"] > 1:
            raise BadValue(f"activations/sign: invalid settings {spec}.")
        return cls(bool(spec["scaled"]), bool(spec["smooth"]), spec["terms"])

    def bits(self) -> int:
        return self.terms

    def ends(self) -> tuple[float, float] | None:
        return None if self.scaled else (-1.0, 1.0)

    def extra_repr(self) -> str:
        return f"scaled={self.scaled}, smooth={self.smooth}, terms={self.terms}"
