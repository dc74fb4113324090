"""Masked: the surviving entries of a weight and their positions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.lattice import Lattice
from cortado.parts.part import MASK, PART, Arrays


class Masked(Form):
    """Zeros outside a mask; the survivors inside it are a vector in a form of its own."""

    arrays = {"mask": MASK, "kept": PART}
    mask: Tensor
    index: Tensor

    def __init__(self, mask: Tensor, kept: Form) -> None:
        """`mask`: bool, shape of the weight; `kept`: a form of shape (number of true entries,), in row-major order."""
        super().__init__()
        if kept.shape.numel() != int(mask.sum()):
            raise BadValue(
                f"forms/masked: the mask keeps {int(mask.sum())} entries, got {kept.shape.numel()} survivors."
            )
        self.shape = mask.shape
        self.kept = kept
        self.register_buffer("mask", mask.bool())
        self.register_buffer("index", mask.flatten().nonzero().squeeze(1), persistent=False)
        self.register_load_state_dict_post_hook(follow_mask)

    def dense(self) -> Tensor:
        kept = self.kept.dense()
        return (
            torch.zeros(self.shape.numel(), dtype=kept.dtype, device=kept.device)
            .index_copy(0, self.index, kept)
            .view(self.shape)
        )

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        return Masked(self.mask, self.kept.map_values(fn))

    def narrow(self, axis: int, keep: Tensor) -> Form:
        number = torch.full((self.shape.numel(),), -1, device=self.mask.device)
        number[self.index] = torch.arange(len(self.index), device=self.mask.device)
        mask = self.mask.index_select(axis, keep)
        survivors = number.view(self.shape).index_select(axis, keep)[mask]
        return Masked(mask, self.kept.narrow(0, survivors))

    def bits(self) -> float:
        return self.mask.numel() + self.kept.bits()

    def select(self, mask: Tensor) -> Form:
        survivors = mask[self.mask].nonzero().squeeze(1)
        return Masked(mask & self.mask, self.kept.narrow(0, survivors))

    def support(self) -> Tensor:
        return self.mask

    def lattice(self) -> Lattice | None:
        kept = self.kept.lattice()
        if kept is None or kept.layout != "tensor":
            return None
        zero = 0 if kept.zero is None else int(kept.zero)
        codes = torch.full(self.shape, zero, dtype=torch.int32, device=kept.codes.device)
        codes[self.mask] = kept.codes.int()
        return Lattice(codes, kept.scale, kept.zero)

    def symbols(self) -> tuple[Tensor, int] | None:
        kept = self.kept.symbols()
        if kept is None:
            return None
        whole = torch.zeros(self.shape, dtype=torch.int32, device=self.mask.device)
        whole[self.mask] = kept[0].int()
        return whole, kept[1]

    def code_bits(self) -> int | None:
        return self.kept.code_bits()

    def parts(self) -> Arrays:
        return {"mask": self.mask, "kept": self.kept}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Masked":
        return cls(parts["mask"].reshape(shape), parts["kept"])

    def finalize(self) -> Form:
        return Masked(self.mask, self.kept.finalize())

    def scale_rows(self, factors: Tensor) -> bool:
        # Only plain floats can absorb a factor that differs from row to row.
        if not self.kept.only_floats:
            return False
        rows = self.index // max(1, self.shape.numel() // max(1, self.shape[0]))
        return self.kept.scale_rows(factors[rows])


def follow_mask(form: Any, keys: Any) -> None:
    """Resize to the mask that is being loaded."""
    form.index = form.mask.flatten().nonzero().squeeze(1)
