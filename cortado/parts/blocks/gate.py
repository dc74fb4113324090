"""Gate: decides for each sample whether it runs the block inside, or passes it by."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.blocks.block import INNER, ORIGINAL, Block, Execution
from cortado.parts.blocks.rows import ChooseRows

OPENS = "gate_opens"
"""The name of the module in a gate that decides; its outputs are what an objective on open gates taps."""
LEAST = 1e-6
"""The smallest uniform number that noise is made of: its logarithm has to be finite."""


class Opens(nn.Module):
    """Says for which samples a gate is open, from the mean of each channel: linear, ReLU, linear.

    In training the answer is drawn: 1 with the probability sigmoid(logit), else 0, with the gradient of the soft answer at
    `temperature`. This is the Gumbel-softmax of two classes: the difference of their noises is logistic.
    """

    def __init__(self, channels: int, hidden: int, channels_last: bool) -> None:
        super().__init__()
        self.read, self.decide = nn.Linear(channels, hidden), nn.Linear(hidden, 1)
        self.channels_last, self.temperature, self.noise = channels_last, 1.0, 1.0

    def means(self, values: Tensor) -> Tensor:
        """Return the mean of each channel (N, channels) of values (N, channels, ...) or (N, ..., channels)."""
        if values.dim() == 2:
            return values
        return values.flatten(1, -2).mean(1) if self.channels_last else values.flatten(2).mean(2)

    def logits(self, values: Tensor) -> Tensor:
        """Return how open the gate is for each sample (N,), in float32."""
        return self.decide(torch.relu(self.read(self.means(values)))).squeeze(1).float()  # type: ignore[no-any-return]

    def forward(self, values: Tensor) -> Tensor:
        """Return (N,): in eval mode bool; in training floats that are exactly 0 or 1, with a gradient."""
        logits = self.logits(values)
        if not self.training:
            return logits > 0
        uniform = torch.rand_like(logits).clamp(LEAST, 1 - LEAST)
        soft = torch.sigmoid((logits + self.noise * torch.logit(uniform)) / self.temperature)
        return (soft > 0.5).float() + (soft - soft.detach())


class Gate(Block):
    """Around a module whose output has the shape of its input: each sample runs it or keeps its values as they are.

    ConvNet-AIG, Veit and Belongie, 2018. Values are (N, channels, ...), with `channels_last` (N, ..., channels); the first
    axis has to be the samples. Further arguments go to the module inside. `temperature` matters in training alone, and is not
    stored: a gate that is loaded has 1. Raises BadValue for sizes below 1.
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

    def execution(self) -> Execution:
        return Execution(self.gate_rows.ran.rows)
