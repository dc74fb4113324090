"""Lattice: the integers of a weight whose values lie on an even grid."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lattice:
    """value = (code - zero) x scale.

    `codes`: integers, shape of the weight. `scale` and `zero` (None: 0): one number per tensor, per channel (index along
    axis 0), or per `group` neighbours in a channel's row, as `layout` says ("tensor", "channel", "group").
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None = None
    layout: str = "tensor"
    group: int = 0

    def spread(self, values: Tensor) -> Tensor:
        """Return one value per scale, laid out to broadcast with the codes."""
        return spread(values, self.codes.shape, self.layout, self.group)

    def steps(self) -> Tensor:
        """Return the codes counted from the zero point: int32, 0 for a weight of zero."""
        return self.codes.int() if self.zero is None else self.codes.int() - self.spread(self.zero).int()

    def dense(self) -> Tensor:
        """Return the weight."""
        zero = None if self.zero is None else self.spread(self.zero)
        if torch.compiler.is_compiling():
            # It saves what it likes, and takes no functions of this kind.
            return counted_from_zero(self.codes, zero, self.scale.dtype) * self.spread(self.scale)
        found: Tensor = ScaledCodes.apply(self.codes, zero, self.spread(self.scale))  # type: ignore[no-untyped-call]
        return found


class ScaledCodes(torch.autograd.Function):
    """(codes - zero) x scale, whose gradient keeps the codes as integers: as floats they take four times the memory."""

    generate_vmap_rule = True

    @staticmethod
    def forward(codes: Tensor, zero: Tensor | None, scale: Tensor) -> Tensor:  # type: ignore[override]
        return counted_from_zero(codes, zero, scale.dtype) * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, Tensor], output: Tensor) -> None:
        codes, zero, scale = inputs
        ctx.save_for_backward(codes, zero)
        ctx.shape = scale.shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:  # type: ignore[override]
        codes, zero = ctx.saved_tensors
        return None, None, (gradient * counted_from_zero(codes, zero, gradient.dtype)).sum_to_size(ctx.shape)


def counted_from_zero(codes: Tensor, zero: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the codes counted from the zero point, as floats."""
    return codes.to(dtype) if zero is None else codes.to(dtype) - zero.to(dtype)


def spread(values: Tensor, shape: torch.Size, layout: str, group: int) -> Tensor:
    """Return one value per scale, laid out to broadcast with a weight of `shape`."""
    if layout == "tensor":
        return values
    if layout == "channel":
        return values.view(-1, *[1] * (len(shape) - 1))
    row = shape[1:].numel()
    return values.view(shape[0], -1).repeat_interleave(group, 1)[:, :row].reshape(shape)
