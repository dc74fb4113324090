"""MaskedLatent: a weight that is rounded at every training step, with some entries kept at zero."""

from collections.abc import Callable

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.lattice import Lattice
from cortado.parts.part import MASK, PART, Arrays


class MaskedLatent(Form):
    """Zeros outside a mask; inside it a latent form of the whole weight continues to be rounded and trained.

    The latent form sees all entries, so that scales per row or channel keep their meaning. After training, zeros are
    codes of its grid or codebook.
    """

    arrays = {"mask": MASK, "latent": PART}
    mask: Tensor

    def __init__(self, mask: Tensor, latent: Form) -> None:
        """`mask`: bool, shape of the weight; `latent`: a form of that shape.  Raises BadValue."""
        super().__init__()
        if mask.shape != latent.shape:
            raise BadValue(
                f"forms/masked_latent: the mask has shape {tuple(mask.shape)}, the weight {tuple(latent.shape)}."
            )
        self.shape, self.latent = mask.shape, latent
        self.register_buffer("mask", mask.bool())

    @classmethod
    def inner_shapes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, torch.Size]:
        return {"latent": shape}

    def dense(self) -> Tensor:
        values = self.latent.dense()
        return torch.where(self.mask, values, torch.zeros_like(values))

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        made = self.latent.map_values(fn)
        return made.select(self.mask) or made

    def narrow(self, axis: int, keep: Tensor) -> Form:
        made = self.latent.narrow(axis, keep)
        return made.select(self.mask.index_select(axis, keep)) or made

    def select(self, mask: Tensor) -> Form:
        return MaskedLatent(mask & self.mask, self.latent)

    def support(self) -> Tensor:
        return self.mask

    def lattice(self) -> Lattice | None:
        return self.masked(self.latent.finalize()).lattice()

    def float_levels(self) -> Tensor | None:
        levels = self.latent.float_levels()
        return None if levels is None else torch.where(self.mask, levels, torch.zeros_like(levels))

    def bits(self) -> float:
        return self.mask.numel() + self.latent.bits()

    def parts(self) -> Arrays:
        return {"mask": self.mask, "latent": self.latent}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "MaskedLatent":
        return cls(parts["mask"].reshape(shape), parts["latent"])

    def finalize(self) -> Form:
        return self.masked(self.latent.finalize())

    def masked(self, final: Form) -> Form:
        """Return a final form with the zeros of the mask."""
        return final.select(self.mask) or final
