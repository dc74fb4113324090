"""ScaleShift: stands in a folded batch norm's place: one factor and one summand per channel."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.blocks.block import Block


def norm_class(axes: int) -> Any:
    """Return torch's class of batch norms for so many axes."""
    return getattr(nn, f"BatchNorm{axes}d")


class ScaleShift(Block):
    """y = weight x + bias for every channel (axis 1).  Training changes both and gathers no statistics.

    `axes`: 1, 2 or 3, as of the batch norm before.
    """

    facts = ("num_features", "axes")

    def __init__(self, num_features: int, axes: int, device: Any = None) -> None:
        """Raises BadValue for axes of no batch norm."""
        super().__init__()
        if axes not in (1, 2, 3):
            raise BadValue(f"blocks/scale_shift: axes must be 1, 2 or 3, got {axes}.")
        self.num_features, self.axes = num_features, axes
        self.weight = nn.Parameter(torch.ones(num_features, device=device))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device))

    @classmethod
    def of(cls, norm: Any) -> "ScaleShift":
        """Return what a batch norm of channels does in eval mode."""
        axes = next(axes for axes in (1, 2, 3) if isinstance(norm, norm_class(axes)))
        made = cls(len(norm.running_mean), axes).to(norm.running_mean)
        with torch.no_grad():
            gain = (norm.running_var.double() + norm.eps).rsqrt()
            gain = gain if norm.weight is None else gain * norm.weight.double()
            shift = torch.zeros_like(gain) if norm.bias is None else norm.bias.double()
            made.weight.copy_(gain)
            made.bias.copy_(shift - norm.running_mean.double() * gain)
        return made

    def as_layer(self) -> nn.Module:
        """Return a batch norm in eval mode that does the same: mean 0, variance 1."""
        made = norm_class(self.axes)(self.num_features, eps=0.0).to(self.weight)
        made.weight, made.bias = nn.Parameter(self.weight.detach()), nn.Parameter(self.bias.detach())
        return made.eval()

    def reset_parameters(self) -> None:
        """Set the factor to 1 and the summand to 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, values: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return the scaled and shifted values; `values`: (N, channels, ...)."""
        shape = [-1 if axis == 1 else 1 for axis in range(values.dim())]
        return values * self.weight.view(shape) + self.bias.view(shape)
