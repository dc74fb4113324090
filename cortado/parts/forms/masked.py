"""Masked: the surviving entries of a weight and their positions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import FORM, MASK, Arrays, Form


class Masked(Form):
    """Zeros outside a mask; the survivors inside it are a vector in a form of its own."""

    arrays = {"mask": MASK, "kept": FORM}
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

    @classmethod
    def of(cls, values: Tensor, mask: Tensor) -> "Masked":
        """Return a form that keeps `values` where `mask` is true."""
        return cls(mask, Dense(values.detach()[mask]))

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

    def spec(self) -> dict[str, int]:
        return {}

    def parts(self) -> Arrays:
        return {"mask": self.mask, "kept": self.kept}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Masked":
        return cls(parts["mask"].reshape(shape), parts["kept"])

    def finalize(self) -> Form:
        return Masked(self.mask, self.kept.finalize())

    def scale_rows(self, factors: Tensor) -> bool:
        # Only dense floats can absorb a factor that differs from row to row.
        if not isinstance(self.kept, Dense):
            return False
        rows = self.index // max(1, self.shape.numel() // max(1, self.shape[0]))
        return self.kept.scale_rows(factors[rows])


def follow_mask(form: Any, keys: Any) -> None:
    """Resize to the mask that is being loaded."""
    form.index = form.mask.flatten().nonzero().squeeze(1)
