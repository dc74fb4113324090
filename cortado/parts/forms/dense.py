"""Dense: the weight as plain floats."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.masked import Masked
from cortado.parts.part import FLOATS, Arrays


class Dense(Form):
    """Every entry is its own float."""

    arrays = {"values": FLOATS}
    only_floats = True

    def __init__(self, values: Tensor) -> None:
        """`values`: the weight, any shape, floating point."""
        super().__init__()
        self.shape = values.shape
        self.values = nn.Parameter(values.detach().clone(), requires_grad=values.is_floating_point())

    def dense(self) -> Tensor:
        return self.values

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        return fn(self.values.detach())

    def narrow(self, axis: int, keep: Tensor) -> Form:
        return Dense(self.values.detach().index_select(axis, keep))

    def bits(self) -> float:
        return self.values.numel() * self.values.element_size() * 8

    def select(self, mask: Tensor) -> Form:
        return Masked(mask, Dense(self.values.detach()[mask]))

    def parts(self) -> Arrays:
        return {"values": self.values.detach()}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Dense":
        values = parts["values"]
        if values.numel() != shape.numel():
            raise BadValue(f"forms/dense: {values.numel()} values do not fill the shape {tuple(shape)}.")
        return cls(values.reshape(shape))

    def scale_rows(self, factors: Tensor) -> bool:
        with torch.no_grad():
            self.values.mul_(factors.reshape(-1, *[1] * (len(self.shape) - 1)))
        return True
