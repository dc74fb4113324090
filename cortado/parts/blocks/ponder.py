"""Ponder: stands around a stage of residual blocks; each sample or position passes as many of them as its scores say."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.blocks.block import INNER, ORIGINAL, Block
from cortado.parts.blocks.exit import CHANNEL_AXIS
from cortado.parts.blocks.rows import ChooseRows

SAMPLE, POSITION = "sample", "position"
BY = (SAMPLE, POSITION)
EPSILON = 0.01
"""How far below 1 the sum of scores has to come for a place to halt."""
BEGIN = -3.0
"""The bias of scores at first: nearly all places pass all blocks.  Figurnov et al., 2017."""


class ChoosePositions(ChooseRows):
    """For each position of maps (N, C, H, W): `chosen` where the mask (N, H, W) is true, else `otherwise`.

    PyTorch computes both everywhere. A runtime's file may compute `chosen` at the positions of the mask alone.
    """

    def forward(self, mask: Tensor, chosen: Tensor, otherwise: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        if not torch.compiler.is_compiling():
            self.ran.rows = mask.detach()
        return torch.where(mask[:, None], chosen, otherwise)


class Score(nn.Module):
    """How sure a place is to halt, 0..1: from the mean over the sample, and by position from a convolution beside it."""

    def __init__(self, axes: int, channels: int, by: str, kernel: int) -> None:
        super().__init__()
        self.places = {2: (), 3: (1,), 4: (2, 3)}[axes]
        self.pooled = nn.Linear(channels, 1)
        self.near = nn.Conv2d(channels, 1, kernel, padding=kernel // 2, bias=False) if by == POSITION else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw small weights, and let scores begin near 0."""
        nn.init.normal_(self.pooled.weight, std=0.01)
        nn.init.constant_(self.pooled.bias, BEGIN)
        if self.near is not None:
            nn.init.normal_(self.near.weight, std=0.01)

    def forward(self, values: Tensor) -> Tensor:
        """Return (N,), or by position (N, H, W)."""
        pooled = self.pooled(values.mean(self.places) if self.places else values)
        if self.near is None:
            return pooled[:, 0].sigmoid()
        return (self.near(values)[:, 0] + pooled[:, :, None]).sigmoid()


class PonderSteps(nn.Module):
    """The ponder cost of each place: the blocks that it passed, and what was left to halt at the last.  Graves, 2016."""

    def forward(self, passed: Tensor, remainder: Tensor) -> Tensor:
        """Return (N,), or by position (N, H, W), whose gradient is the remainder's."""
        return passed + remainder


class Halting:
    """Where each place is on its way: what it has summed up, its output, how many blocks it passed."""

    def __init__(self, score: Tensor, value: Tensor) -> None:
        self.sum, self.passed, self.remainder = (torch.zeros_like(score) for _ in range(3))
        self.active = torch.ones_like(score, dtype=torch.bool)
        self.output = torch.zeros_like(value)

    def add(self, score: Tensor, value: Tensor) -> None:
        """Take the score and the value after a block; places that halted before stay as they are."""
        reached = self.sum + score
        halts = reached >= 1 - EPSILON
        weight = torch.where(halts, 1 - self.sum, score) * self.active
        self.remainder = torch.where(self.active & halts, 1 - self.sum, self.remainder)
        self.passed = self.passed + self.active.to(score)
        spread = weight[:, None] if weight.dim() > 1 else weight.reshape(-1, *[1] * (value.dim() - 1))
        self.output = self.output + spread * value
        self.sum = torch.where(self.active, reached, self.sum)
        self.active = self.active & ~halts


class Ponder(Block):
    """Adaptive computation time over the blocks of a stage: by sample (Graves, 2016), or by position (Figurnov et al., 2017).

    After each block a score is added up; where the sum comes within EPSILON of 1, or after the last block, a place halts and
    keeps its value for the blocks to come. The output is the sum of the values after each block, weighted by the scores, the
    last one by what was left. `axes` and `channels` are those of the values between the blocks, `blocks` counts them.
    """

    facts = ("blocks", "axes", "channels", "by", "kernel")
    arrays: ClassVar[dict[str, str]] = {INNER: ORIGINAL}

    def __init__(
        self, inner: nn.Module, axes: int, channels: int, by: str = SAMPLE, kernel: int = 3, blocks: int = 0
    ) -> None:
        """Raises BadValue for a stage without two blocks, and for positions of values that are no maps."""
        super().__init__()
        self.inner = inner
        self.blocks = blocks or len(list(inner.children()))
        if axes not in CHANNEL_AXIS or channels < 1 or by not in BY or kernel not in (1, 3):
            raise BadValue(
                f"blocks/ponder: it reads values of 2, 3 or 4 axes, by {' or '.join(BY)}, with a kernel of 1 or 3, got {axes} "
                f"axes, {channels} channels, {by!r}, {kernel}."
            )
        if by == POSITION and axes != 4:
            raise BadValue(f"blocks/ponder: only maps have positions, got values of {axes} axes. Use by: sample.")
        if not isinstance(inner, nn.Sequential) or len(inner) != self.blocks or self.blocks < 2:
            raise BadValue("blocks/ponder: it stands around an nn.Sequential of two blocks or more.")
        self.axes, self.channels, self.kernel, self.how = axes, channels, kernel, by
        self.by = BY.index(by)
        self.ponder_scores = nn.ModuleList(Score(axes, channels, by, kernel) for _ in range(self.blocks - 1))
        choose = ChoosePositions if by == POSITION else ChooseRows
        self.ponder_choices = nn.ModuleList(choose() for _ in range(self.blocks - 1))
        self.ponder_cost = PonderSteps()

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: dict[str, Any]) -> "Ponder":
        if spec["by"] >= len(BY):
            raise BadValue("blocks/ponder: it halts in a way that is not known.")
        return cls(**parts, **spec | {"by": BY[spec["by"]]})  # type: ignore[arg-type]

    def forward(self, values: Tensor) -> Tensor:
        """Return the weighted sum of what the blocks give, in the shape of the last one's output."""
        first, *others = self.inner.children()
        value = first(values)
        score = self.ponder_scores[0](value)
        way = Halting(score, value)
        way.add(score, value)
        for number, block in enumerate(others):
            value = self.ponder_choices[number](way.active, block(value), value)
            last = number + 1 == len(others)
            score = torch.ones_like(way.sum) if last else self.ponder_scores[number + 1](value)
            way.add(score, value)
        self.ponder_cost(way.passed, way.remainder)
        return way.output
