"""Anchors: boxes of fixed sizes around each place of a detector's maps, and offsets from them.  Liu et al., 2016."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cortado.boxes.overlap import centred_of, corners_of
from cortado.errors import BadValue

CENTRE, SIZE = 0.1, 0.2
"""Offsets are divided by these, so that they have about the same spread as logits.  Liu et al., 2016."""
LARGEST = 4.0
"""Largest logarithm of how much a box is larger than its anchor, so that no box is infinite."""

Shapes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Anchors:
    """The anchors of each level of a detector: `sizes` in pixels (the square root of the area) times `ratios` (width to height).

    >>> Anchors(strides=(8, 16), sizes=((16.0,), (32.0, 48.0)))

    `strides`: pixels between two places of a level. Raises BadValue where there is not one list of sizes for each stride, and
    for numbers that are not above 0.
    """

    strides: tuple[int, ...] = (8, 16, 32)
    sizes: tuple[tuple[float, ...], ...] = ((22.0,), (36.0, 52.0), (75.0, 110.0))
    ratios: tuple[float, ...] = (1.0, 1.5, 1 / 1.5)

    def __post_init__(self) -> None:
        for name in ("strides", "ratios"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "sizes", tuple(tuple(level) for level in self.sizes))
        numbers = [*self.strides, *self.ratios, *(size for level in self.sizes for size in level)]
        if len(self.strides) != len(self.sizes) or not all(self.sizes) or not self.ratios or min(numbers) <= 0:
            raise BadValue(
                "anchors: there must be sizes for each stride, and all numbers above 0, got "
                f"strides {self.strides}, sizes {self.sizes}, ratios {self.ratios}. Write one tuple of sizes per level."
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Return how many anchors each place of each level has."""
        return tuple(len(sizes) * len(self.ratios) for sizes in self.sizes)

    def over(self, shapes: Sequence[tuple[int, int]]) -> "AnchorGrid":
        """Return the anchors of maps of these heights and widths."""
        return AnchorGrid(self, tuple((int(height), int(width)) for height, width in shapes))

    def on(self, height: int, width: int) -> "AnchorGrid":
        """Return the anchors for pictures of a size, whose maps have a place for each whole stride."""
        return self.over([(height // stride, width // stride) for stride in self.strides])


ANCHORS = Anchors()
"""For objects of about 15 to 140 pixels at strides 8, 16 and 32, such as blood cells."""


@dataclass(frozen=True)
class AnchorGrid:
    """The anchors of a network's maps, level by level, row by row, as its outputs are ordered.

    `boxes` (places, 4) are their centre x, centre y, width and height in pixels. Raises BadValue for another number of maps
    than levels.
    """

    anchors: Anchors
    shapes: Shapes
    boxes: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.shapes) != len(self.anchors.strides):
            raise BadValue(
                f"anchors: there are {len(self.anchors.strides)} levels and {len(self.shapes)} maps. Name one map per level."
            )
        # Made at once, because a tensor that is first made while a network is traced is none afterwards.
        levels = zip(self.anchors.strides, self.anchors.sizes, self.shapes, strict=True)
        made = [level_anchors(stride, sizes, self.anchors.ratios, shape) for stride, sizes, shape in levels]
        object.__setattr__(self, "boxes", torch.cat(made))

    @property
    def places(self) -> int:
        return sum(
            count * height * width for count, (height, width) in zip(self.anchors.counts, self.shapes, strict=True)
        )

    def class_scores(self, logits: Tensor) -> Tensor:
        """Return (N, places, classes): the softmax without background, which is number 0."""
        return logits.softmax(-1)[..., 1:]

    def softmaxes(self, logits: Tensor) -> Tensor:
        """Return (N, places, 1, 1 + classes): one decision."""
        return logits[:, :, None]

    def decoded(self, offsets: Tensor) -> Tensor:
        """Return corners (..., places, 4) in pixels."""
        anchors = self.boxes.to(offsets)
        centres = anchors[:, :2] + offsets[..., :2] * CENTRE * anchors[:, 2:]
        sizes = anchors[:, 2:] * (offsets[..., 2:] * SIZE).clamp(max=LARGEST).exp()
        return corners_of(torch.cat([centres, sizes], -1))

    def encoded(self, corners: Tensor) -> Tensor:
        """Return the offsets (..., places, 4) of a box for each anchor; the inverse of `decoded`."""
        anchors, boxes = self.boxes.to(corners), centred_of(corners)
        centres = (boxes[..., :2] - anchors[:, :2]) / anchors[:, 2:] / CENTRE
        sizes = (boxes[..., 2:].clamp(min=1e-3) / anchors[:, 2:]).log() / SIZE
        return torch.cat([centres, sizes], -1)


def level_anchors(stride: int, sizes: Sequence[float], ratios: Sequence[float], shape: tuple[int, int]) -> Tensor:
    """Return (height * width * sizes * ratios, 4): the anchors of one map, those of a place next to one another."""
    height, width = shape
    rows, columns = torch.meshgrid(torch.arange(height, device="cpu"), torch.arange(width, device="cpu"), indexing="ij")
    centres = (torch.stack([columns, rows], -1).reshape(-1, 1, 2) + 0.5) * stride
    pairs_of = [(size * math.sqrt(ratio), size / math.sqrt(ratio)) for size in sizes for ratio in ratios]
    shapes = torch.tensor(pairs_of, device="cpu")
    pairs = torch.broadcast_tensors(centres.float(), shapes[None])
    return torch.cat(pairs, -1).reshape(-1, 4)
