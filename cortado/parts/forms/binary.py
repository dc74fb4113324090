"""Binary: a latent weight used as its sign times a scale."""

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.latent import Latent, signs, straight
from cortado.parts.forms.quantized import Quantized
from cortado.parts.part import FLOATS, Arrays

SCALES = ("none", "tensor", "channel", "learned")


class Binary(Latent):
    """sign(values) x scale; the gradient passes inside -1..1, and every step clips the values to that range.

    `scale`: none (BinaryConnect, Courbariaux et al., 2015), the mean magnitude of the values in the tensor or in each
    output channel (BWN and XNOR-Net, Rastegari et al., 2016: the scale of least squared error), or a learned one
    (Tang et al., 2017). `stochastic`: in training mode a sign is +1 with probability clip((value + 1) / 2, 0, 1); in
    eval mode it is the value's.
    """

    facts = ("scale", "stochastic")
    arrays = {"values": FLOATS, "factor": FLOATS}

    def __init__(
        self, values: Tensor, scale: str = "channel", stochastic: bool = False, factor: float | Tensor | None = None
    ) -> None:
        """`factor`: the initial value of a learned scale; by default the mean magnitude.  Raises BadValue."""
        super().__init__(values)
        if scale not in SCALES or (scale == "channel" and values.dim() == 0):
            raise BadValue(
                f"forms/binary: scale must be one of {', '.join(SCALES)}, got {scale!r} for {values.dim()} axes."
            )
        self.sort, self.stochastic = scale, stochastic
        first = (
            values.detach().abs().mean().reshape(1) if factor is None else torch.as_tensor(factor).to(values).reshape(1)
        )
        self.factor = nn.Parameter(first.clone()) if scale == "learned" else None

    @property
    def scale(self) -> Tensor:
        """Return the scale, shaped to broadcast with the values."""
        if self.factor is not None:
            return self.factor.view([1] * len(self.shape))
        if self.sort == "none":
            return torch.ones([1] * len(self.shape), dtype=self.values.dtype, device=self.values.device)
        size = self.values.abs()
        return (
            size.reshape(self.shape[0], -1).mean(1).view(-1, *[1] * (len(self.shape) - 1))
            if self.sort == "channel"
            else size.mean()
        )

    def rounded(self) -> Tensor:
        inside = self.values.clamp(-1, 1)
        if self.stochastic and self.training:
            drawn = torch.where(torch.rand_like(inside) < (inside.detach() + 1) / 2, 1.0, -1.0).to(inside.dtype)
            return straight(drawn, inside) * self.scale
        return straight(signs(self.values), inside) * self.scale

    def after_step(self) -> None:
        with torch.no_grad():
            self.values.clamp_(-1, 1)

    def attached(self) -> Form:
        layout = "channel" if self.sort == "channel" else "tensor"
        return Quantized(signs(self.values.detach()), self.scale.detach().reshape(-1), layout=layout)

    def spec(self) -> dict[str, int]:
        return {"scale": SCALES.index(self.sort), "stochastic": int(self.stochastic)}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        if not 0 <= spec["scale"] < len(SCALES) or spec["stochastic"] not in (0, 1):
            raise BadValue(f"forms/binary: unknown scale in {spec}.")
        return {"factor": int(SCALES[spec["scale"]] == "learned")}

    def parts(self) -> Arrays:
        factor = self.values.new_empty(0) if self.factor is None else self.factor
        return {"values": self.values.detach(), "factor": factor.detach()}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Binary":
        factor = parts["factor"] if parts["factor"].numel() else None
        return cls(parts["values"].reshape(shape), SCALES[spec["scale"]], bool(spec["stochastic"]), factor)
