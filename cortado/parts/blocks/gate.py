"""Gate: decides for each sample whether it runs the block inside, or passes it by."""

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.blocks.block import INNER, ORIGINAL, Block
from cortado.parts.blocks.rows import ChooseRows

OPENS = "gate_opens"
"""The name of the module in a gate that decides; its outputs are what an objective on open gates taps."""
LEAST = 1e-6
"""The smallest uniform number that noise is made of: its logarithm has to be finite."""


class Opens(nn.Module):
    """Says for which samples a gate is open, from the mean of each channel: linear, ReLU, linear.

    In training, `noise` 1 draws the answer: 1 with the probability sigmoid(logit), else 0. This is the Gumbel-softmax of two
    classes, since the difference of their noises is logistic. With noise 0 it is the answer of eval mode. Both have the
    gradient of the soft answer at `temperature`.
    """

    def __init__(self, channels: int, hidden: int, channels_last: bool) -> None:
        super().__init__()
        self.read, self.decide = nn.Linear(channels, hidden), nn.Linear(hidden, 1)
        self.channels_last, self.temperature, self.noise = channels_last, 1.0, 0.0

    def means(self, values: Tensor) -> Tensor:
        """Return the mean of each channel (N, channels) of values (N, channels, ...) or (N, ..., channels)."""
        if values.dim() == 2:
            return values
        return values.flatten(1, -2).mean(1) if self.channels_last else values.flatten(2).mean(2)

    def forward(self, values: Tensor) -> Tensor:
        """Return (N,): in eval mode bool; in training floats that are exactly 0 or 1, with a gradient."""
        logits = self.decide(torch.relu(self.read(self.means(values)))).squeeze(1).float()
        if not self.training:
            return logits > 0
        if self.noise:
            logits = logits + self.noise * torch.logit(torch.rand_like(logits).clamp(LEAST, 1 - LEAST))
        soft = torch.sigmoid(logits / self.temperature)
        return (logits > 0).float() + (soft - soft.detach())

    @torch.no_grad()
    def prepare(self, values: Tensor, start: float) -> None:
        """Let the hidden units differ between samples: each gets mean 0 and variance 1 over `values`.

        A gate is open with a probability of about `start` at first. The means of a trained network's channels differ little
        from sample to sample; fresh weights would see them as all the same.
        """
        hidden = self.read(self.means(values))
        spread = hidden.std(0, correction=0)
        scale = torch.where(spread > LEAST, 1 / spread.clamp(min=LEAST), 1.0)
        self.read.weight.mul_(scale[:, None])
        self.read.bias.sub_(hidden.mean(0)).mul_(scale)
        self.decide.bias.fill_(math.log(start / (1 - start)))


class Gate(Block):
    """Around a module whose output has the shape of its input: each sample runs it or keeps its values as they are.

    ConvNet-AIG, Veit and Belongie, 2018. Values are (N, channels, ...), with `channels_last` (N, ..., channels); the first
    axis has to be the samples. Further arguments go to the module inside. `gate_opens` decides; its noise and temperature
    matter in training alone, and are not stored. Raises BadValue for sizes below 1.
    """

    facts: ClassVar[tuple[str, ...]] = ("channels", "hidden", "channels_last")
    arrays: ClassVar[dict[str, str]] = {INNER: ORIGINAL}

    def __init__(self, inner: nn.Module, channels: int, hidden: int = 16, channels_last: bool = False) -> None:
        super().__init__()
        if channels < 1 or hidden < 1 or channels_last not in (0, 1):
            raise BadValue(
                "blocks/gate: channels and hidden must be 1 or more and channels_last 0 or 1, "
                f"got {channels}, {hidden}, {channels_last}."
            )
        self.inner = inner
        self.gate_opens = Opens(channels, hidden, bool(channels_last))
        self.gate_rows = ChooseRows()

    @property
    def channels(self) -> int:
        """Return how many channels the gate reads."""
        return self.gate_opens.read.in_features

    @property
    def hidden(self) -> int:
        """Return how many hidden units the gate has."""
        return self.gate_opens.read.out_features

    @property
    def channels_last(self) -> bool:
        """Return whether the channels are the last axis."""
        return self.gate_opens.channels_last

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: dict[str, Any]) -> Self:
        return cls(parts[INNER], **spec)  # type: ignore[arg-type]

    def forward(self, values: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return (N, ...): what the module inside makes of open samples, and `values` of the others."""
        opened, inside = self.gate_opens(values), self.inner(values, *others, **named)
        if not self.training:
            return self.gate_rows(opened, inside, values)  # type: ignore[no-any-return]
        found = self.gate_rows(opened > 0.5, inside, values)
        # Exactly 0, with the gradient that the gate has in values + gate * (inside - values).
        nothing = (opened - opened.detach()).reshape(-1, *[1] * (values.dim() - 1))
        return found + nothing * (inside - values).detach()  # type: ignore[no-any-return]
