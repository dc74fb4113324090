"""Yolo: a detector without anchors in the style of YOLO: C2f blocks, pooled context, a pyramid both ways, distributed distances.

Redmon et al., 2016; blocks as in YOLOv8 (2023); distances as distributions after Li et al., 2020 (generalized focal loss).
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.boxes.points import PointGrid
from cortado.errors import BadValue
from cortado.nets.weights import load_arrays, read_arrays, weights_path

STRIDES = (8, 16, 32)


def conv_norm_silu(into: int, out: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias, batch norm and SiLU."""
    layer = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.SiLU())


class Narrow(nn.Module):
    """Two 3 x 3 convolutions, with a shortcut if asked."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm_silu(channels, channels, 3), conv_norm_silu(channels, channels, 3))
        self.shortcut = shortcut

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.body(maps) if self.shortcut else self.body(maps)


class C2f(nn.Module):
    """Half of the channels pass, the other half runs through blocks; all that came out on the way is joined."""

    def __init__(self, into: int, out: int, blocks: int, shortcut: bool) -> None:
        super().__init__()
        half = out // 2
        self.enter = conv_norm_silu(into, 2 * half)
        self.blocks = nn.ModuleList([Narrow(half, shortcut) for _ in range(blocks)])
        self.leave = conv_norm_silu((2 + blocks) * half, out)

    def forward(self, maps: Tensor) -> Tensor:
        parts = list(self.enter(maps).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Sppf(nn.Module):
    """Maxima over ever larger neighbourhoods, one from the other, joined.  He et al., 2014 (spatial pyramid pooling)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter, self.leave = conv_norm_silu(channels, half), conv_norm_silu(4 * half, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, maps: Tensor) -> Tensor:
        parts = [self.enter(maps)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class PyramidBothWays(nn.Module):
    """Maps from coarse to fine, then from fine to coarse, each joined with the one of its size.  Liu et al., 2018 (PANet)."""

    def __init__(self, channels: tuple[int, int, int], blocks: int) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.to_middle = C2f(coarse + middle, middle, blocks, False)
        self.to_fine = C2f(middle + fine, fine, blocks, False)
        self.from_fine, self.from_middle = conv_norm_silu(fine, fine, 3, 2), conv_norm_silu(middle, middle, 3, 2)
        self.at_middle = C2f(fine + middle, middle, blocks, False)
        self.at_coarse = C2f(middle + coarse, coarse, blocks, False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = maps
        down = self.to_middle(torch.cat([larger(coarse, middle), middle], 1))
        first = self.to_fine(torch.cat([larger(down, fine), fine], 1))
        second = self.at_middle(torch.cat([self.from_fine(first), down], 1))
        return [first, second, self.at_coarse(torch.cat([self.from_middle(second), coarse], 1))]


def larger(maps: Tensor, like: Tensor) -> Tensor:
    """Return maps enlarged to the height and width of others, each place repeated."""
    return functional.interpolate(maps, size=like.shape[-2:], mode="nearest")


class Distances(nn.Module):
    """Four distances as the means of distributions over `bins` whole numbers of strides.  Li et al., 2020."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.numbers: Tensor
        self.register_buffer("numbers", torch.arange(float(bins)), persistent=False)

    def forward(self, answers: Tensor) -> Tensor:
        """Return (N, places, 4) from logits (N, places, 4 * bins)."""
        shares = answers.unflatten(2, (4, self.bins)).softmax(-1)
        return (shares * self.numbers).sum(-1)


class Yolo(nn.Module):
    """Input (N, 3, H, W), output a pair: logits (N, places, classes) and distances to four sides (N, places, 4), in strides.

    >>> network = Yolo(classes=3, width=16)

    `width` are the channels at stride 2, twice as many at each of strides 4 to 32; `blocks` in each C2f. Raises BadValue for a
    width below 4 or one that is odd, less than one block, or less than 2 bins.
    """

    def __init__(self, classes: int = 3, width: int = 16, blocks: int = 1, bins: int = 16) -> None:
        super().__init__()
        if width < 4 or width % 2 or blocks < 1 or bins < 2:
            raise BadValue(
                f"yolo: width must be even and at least 4, blocks at least 1 and bins at least 2, got {width}, {blocks}, {bins}."
            )
        sizes = [width * 2**level for level in range(5)]
        self.stem = conv_norm_silu(3, sizes[0], 3, 2)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(conv_norm_silu(into, out, 3, 2), C2f(out, out, blocks, True))
                for into, out in pairwise(sizes)
            ]
        )
        self.context = Sppf(sizes[-1])
        levels = (sizes[2], sizes[3], sizes[4])
        self.pyramid = PyramidBothWays(levels, blocks)
        self.classes = nn.ModuleList([yolo_branch(one, classes) for one in levels])
        self.sides = nn.ModuleList([yolo_branch(one, 4 * bins) for one in levels])
        self.distances = Distances(bins)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        maps = [self.stem(pictures)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        levels = self.pyramid([maps[2], maps[3], self.context(maps[4])])
        logits = [head(one).flatten(2).mT for head, one in zip(self.classes, levels, strict=True)]
        sides = [head(one).flatten(2).mT for head, one in zip(self.sides, levels, strict=True)]
        return torch.cat(logits, 1), self.distances(torch.cat(sides, 1))

    def grid(self, height: int, width: int) -> PointGrid:
        """Return the places of the answers for pictures of a size."""
        return PointGrid.on(STRIDES, height, width)


def yolo_branch(channels: int, numbers: int) -> nn.Sequential:
    """Return the head of one level for classes or sides."""
    return nn.Sequential(conv_norm_silu(channels, channels, 3), nn.Conv2d(channels, numbers, 1))


def yolo(classes: int = 3, width: int = 16, blocks: int = 1, bins: int = 16, weights: str | Path | None = None) -> Yolo:
    """Return a small detector in the style of YOLO; `weights` is the .npz of a trained one."""
    network = Yolo(classes, width, blocks, bins)
    # At first almost every place sees no object, so that the loss of background does not outweigh all else.
    for head in network.classes:
        nn.init.constant_(head.get_submodule("1").bias, -4.0)  # type: ignore[arg-type]
    if weights is not None:
        path = weights_path(weights, "")
        load_arrays(network, read_arrays(path), str(path))
    return network
