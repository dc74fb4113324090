"""SharedNorm: a batch norm whose statistics, scale and shift are shared by the orientations of a channel."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.parts.blocks.block import Block

EPS_STEP = 1e-9
"""The unit in which facts state eps."""


class SharedNorm(Block):
    """Channels 4c to 4c + 3 (axis 1) are orientations of one channel and normalized as one.  Cohen, Welling, 2016.

    Stands in a batch norm's place behind turned filters. `channels` is their number / 4; `eps` is in units of 1e-9.
    """

    facts = ("channels", "eps")
    TURNS = 4

    def __init__(self, channels: int, eps: int = 10_000, device: Any = None) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.norm = nn.BatchNorm3d(channels, eps=eps * EPS_STEP, device=device)

    @classmethod
    def of(cls, norm: Any) -> "SharedNorm":
        """Return the block for a batch norm of 4c channels: the mean of each four, with the variance of all their values."""
        made = cls(norm.num_features // cls.TURNS, round(norm.eps / EPS_STEP)).to(norm.running_mean)
        inner: Any = made.norm
        inner.momentum, inner.training = norm.momentum, norm.training
        with torch.no_grad():
            for name in ("weight", "bias", "running_mean"):
                getattr(inner, name).copy_(getattr(norm, name).view(-1, cls.TURNS).mean(1))
            square = norm.running_var + norm.running_mean.square()
            inner.running_var.copy_(square.view(-1, cls.TURNS).mean(1) - inner.running_mean.square())
        return made

    def as_layer(self) -> nn.Module:
        norm: Any = nn.BatchNorm2d(self.norm.num_features * self.TURNS, eps=self.norm.eps).to(self.norm.weight)
        with torch.no_grad():
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, name).copy_(getattr(self.norm, name).repeat_interleave(self.TURNS))
        return norm.eval()

    def forward(self, values: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return the normalized values; `values`: (N, 4 x channels, height, width)."""
        return self.norm(values.unflatten(1, (-1, self.TURNS))).flatten(1, 2)
