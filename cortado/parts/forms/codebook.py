"""Codebook: shared values - a small codebook, and each entry's index into it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.masked import Masked
from cortado.parts.part import FLOATS, INTEGERS, Arrays


class Codebook(Form):
    """Every entry is one of at most 256 shared values.

    The gradient of a codebook value is the sum over its members (Han, Mao, Dally, 2016).
    """

    facts = ("values",)
    arrays = {"codebook": FLOATS, "codes": INTEGERS}
    codes: Tensor

    def __init__(self, codebook: Tensor, codes: Tensor) -> None:
        """`codebook`: (values,) floats; `codes`: integers in 0 .. values - 1, shape of the weight."""
        super().__init__()
        if not 1 <= len(codebook) <= 256:
            raise BadValue(f"forms/codebook: a codebook holds 1 to 256 values, got {len(codebook)}.")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < len(codebook):
            raise BadValue(
                f"forms/codebook: codes must lie in 0..{len(codebook) - 1}, got {int(codes.min())}..{int(codes.max())}."
            )
        self.shape = codes.shape
        self.codebook = nn.Parameter(codebook.detach().clone())
        self.register_buffer("codes", codes.to(torch.uint8))

    def dense(self) -> Tensor:
        return self.codebook[self.codes.long()]

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        return fn(self.dense().detach())

    def narrow(self, axis: int, keep: Tensor) -> Form:
        return Codebook(self.codebook.detach(), self.codes.index_select(axis, keep))

    def bits(self) -> float:
        return self.codes.numel() * self.code_bits() + self.codebook.numel() * self.codebook.element_size() * 8

    def select(self, mask: Tensor) -> Form:
        return Masked(mask, Codebook(self.codebook.detach(), self.codes[mask]))

    def symbols(self) -> tuple[Tensor, int]:
        """Return codes numbered from 1 in the order of their values; 0 where the shared value is zero."""
        codebook = self.codebook.detach()
        order = codebook.argsort(stable=True)
        order = order[codebook[order] != 0]
        rank = torch.zeros(len(codebook), dtype=torch.int32, device=codebook.device)
        rank[order] = torch.arange(1, len(order) + 1, dtype=torch.int32, device=codebook.device)
        return rank[self.codes.long()], codebook.numel() * codebook.element_size() * 8

    def code_bits(self) -> int:
        return max(1, (len(self.codebook) - 1).bit_length())

    def spec(self) -> dict[str, int]:
        return {"values": len(self.codebook)}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        if not 1 <= spec["values"] <= 256:
            raise BadValue(f"forms/codebook: a codebook holds 1 to 256 values, got {spec['values']}.")
        return {"codebook": spec["values"]}

    def parts(self) -> Arrays:
        # Ranks start at the first non-negative value: small symbols are small values, which compresses best.
        codebook, order = torch.sort(self.codebook.detach(), stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        return {"codebook": codebook, "codes": rank[self.codes.long()] - int((codebook < 0).sum())}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Codebook":
        codebook = parts["codebook"]
        return cls(codebook, (parts["codes"] + int((codebook < 0).sum())).reshape(shape))
