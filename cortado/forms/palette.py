"""Palette: shared values - a small book, and for each entry the number of its value in the book."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.forms.form import FLOATS, INTEGERS, Arrays, Form


class Palette(Form):
    """Every entry is one of at most 256 shared values.

    The gradient of a value of the book is the sum over its members, as in Han, Mao, Dally, 2016.
    """

    facts = ("values",)
    arrays = {"book": FLOATS, "codes": INTEGERS}
    codes: Tensor

    def __init__(self, book: Tensor, codes: Tensor) -> None:
        """`book`: (values,) floats; `codes`: integers in 0 .. values - 1, shape of the weight."""
        super().__init__()
        if not 1 <= len(book) <= 256:
            raise BadValue(f"forms/palette: a book holds 1 to 256 values, got {len(book)}.")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < len(book):
            raise BadValue(
                f"forms/palette: codes must lie in 0..{len(book) - 1}, got {int(codes.min())}..{int(codes.max())}."
            )
        self.shape = codes.shape
        self.book = nn.Parameter(book.detach().clone())
        self.register_buffer("codes", codes.to(torch.uint8))

    def dense(self) -> Tensor:
        return self.book[self.codes.long()]

    def recode(self, fn: Callable[[Tensor], Form]) -> Form:
        return fn(self.dense().detach())

    def narrow(self, axis: int, keep: Tensor) -> Form:
        return Palette(self.book.detach(), self.codes.index_select(axis, keep))

    def bits(self) -> float:
        width = max(1, (len(self.book) - 1).bit_length())
        return self.codes.numel() * width + self.book.numel() * self.book.element_size() * 8

    def spec(self) -> dict[str, int]:
        return {"values": len(self.book)}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        if not 1 <= spec["values"] <= 256:
            raise BadValue(f"forms/palette: a book holds 1 to 256 values, got {spec['values']}.")
        return {"book": spec["values"]}

    def parts(self) -> Arrays:
        # Ranks counted from the first value that is not negative: small symbols are small values, which codes best.
        book, order = torch.sort(self.book.detach(), stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        return {"book": book, "codes": rank[self.codes.long()] - int((book < 0).sum())}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Palette":
        book = parts["book"]
        return cls(book, (parts["codes"] + int((book < 0).sum())).reshape(shape))
