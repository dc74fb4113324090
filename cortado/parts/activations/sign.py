"""Sign: an activation of which only the signs go on."""

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.activations.quantizer import ActivationQuantizer

MOST_TERMS = 8


class Sign(ActivationQuantizer):
    """-1 below zero, +1 from zero on, the gradient passing inside -1..1: BinaryNet (Courbariaux and Bengio, 2016).

    `scaled` multiplies the signs of a sample by the mean size of its values, as XNOR-Net's input scale does (Rastegari
    et al., 2016), with one number for all positions. `terms` above 1 adds the signs of what is left over, scaled
    likewise: more binary products, less error (Tang et al., 2017). `smooth` gives the gradient the shape of a tent,
    2 - 2|x| (Bi-Real Net, Liu et al., 2018), which is nearer to the sign's.
    """

    facts = ("scaled", "smooth", "terms")

    def __init__(self, scaled: bool = False, smooth: bool = False, terms: int = 1) -> None:
        """Raises BadValue for terms out of range, and for several that are not scaled."""
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
                # A vector, or a single number, is one sample.
                axes = tuple(range(1, values.dim())) if values.dim() > 1 else None
                part = part * (left.abs().mean(axes, keepdim=True) if axes else left.abs().mean())
            total, left = total + part, left - part.detach()
        return total

    def signs(self, values: Tensor) -> Tensor:
        hard = torch.where(values < 0, -1.0, 1.0).to(values.dtype)
        if not torch.is_grad_enabled():
            return hard
        inside = values.clamp(-1, 1)
        # The integral of the tent, which ends at -1 and 1 as the signs do.
        seen = inside * (2 - inside.abs()) if self.smooth else inside
        return seen + (hard - seen).detach()

    def spec(self) -> dict[str, int]:
        return {"scaled": int(self.scaled), "smooth": int(self.smooth), "terms": self.terms}

    def parts(self) -> dict[str, Tensor]:
        return {}

    @classmethod
    def from_parts(cls, spec: dict[str, int], parts: dict[str, Tensor]) -> "Sign":
        if spec["scaled"] > 1 or spec["smooth"] > 1:
            raise BadValue(f"activations/sign: no such settings, got {spec}.")
        return cls(bool(spec["scaled"]), bool(spec["smooth"]), spec["terms"])

    def bits(self) -> int:
        return self.terms

    def ends(self) -> tuple[float, float] | None:
        return None if self.scaled else (-1.0, 1.0)

    def extra_repr(self) -> str:
        return f"scaled={self.scaled}, smooth={self.smooth}, terms={self.terms}"
