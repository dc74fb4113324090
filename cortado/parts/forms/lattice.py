"""Lattice: the integers of a weight whose values lie on an even grid."""

from dataclasses import dataclass

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
        codes = self.codes.to(self.scale.dtype)
        if self.zero is not None:
            codes = codes - self.spread(self.zero).to(self.scale.dtype)
        return codes * self.spread(self.scale)


def spread(values: Tensor, shape: torch.Size, layout: str, group: int) -> Tensor:
    """Return one value per scale, laid out to broadcast with a weight of `shape`."""
    if layout == "tensor":
        return values
    if layout == "channel":
        return values.view(-1, *[1] * (len(shape) - 1))
    row = shape[1:].numel()
    return values.view(shape[0], -1).repeat_interleave(group, 1)[:, :row].reshape(shape)
