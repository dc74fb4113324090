"""MSDNet: a network that keeps several scales along its depth, so that it can answer early and go on from there."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.blocks.rows import FirstSure


class Layer(nn.Module):
    """At each scale that remains: what was there, followed by new channels from the finer scale and from this one.

    `channels` are those of the scales that come in, finest first. With fewer entries of `growth`, the finest scales end
    here: the first that remains still reads the one above it. Half of the new channels come from each of two scales.
    """

    def __init__(self, channels: Sequence[int], growth: Sequence[int], bottlenecks: Sequence[int]) -> None:
        """`bottlenecks`: for each scale that comes in, how many times wider what a 3 x 3 convolution reads may be; 0: any."""
        super().__init__()
        self.ended = len(channels) - len(growth)
        self.down, self.same = nn.ModuleList(), nn.ModuleList()
        for place, new in enumerate(growth, self.ended):
            shared = place > 0
            if shared:
                self.down.append(growing(channels[place - 1], new // 2, bottlenecks[place - 1], stride=2))
            self.same.append(growing(channels[place], new - new // 2 * shared, bottlenecks[place]))

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        """Return the maps (N, C, H, W) of the scales that remain from those that come in, finest first."""
        finest = [] if self.ended else [torch.cat([scales[0], self.same[0](scales[0])], 1)]
        places = range(max(self.ended, 1), len(scales))
        both = zip(places, self.down, list(self.same)[len(finest) :], strict=True)
        return finest + [torch.cat([scales[at], down(scales[at - 1]), same(scales[at])], 1) for at, down, same in both]


class Each(nn.ModuleList):
    """A module for each scale."""

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        """Return what each module gives for its scale."""
        return [module(one) for module, one in zip(self, scales, strict=True)]


class Stem(nn.ModuleList):
    """The first layer: the picture at the finest scale, and each further scale from the one before."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        for number, (inside, outside) in enumerate(pairwise((3, *channels))):
            self.append(activated_conv(inside, outside, 3, 2 if number else 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of all scales, finest first."""
        scales, one = [], images
        for module in self:
            one = module(one)
            scales.append(one)
        return scales


class Classifier(nn.Sequential):
    """Logits from the coarsest scale: two 3 x 3 convolutions with stride 2, the mean over what is left, a linear layer."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__(
            activated_conv(channels, width, 3, 2), activated_conv(width, width, 3, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
        )  # fmt: skip


class MSDNet(nn.Module):
    """Dense layers over several scales, with a classifier after each block.  Huang, Chen, Li, Wu, van der Maaten,
    Weinberger, 2018.

    Input (N, 3, H, W), output (N, `classes`) logits: those of the first classifier that is sure, and of the last one until
    thresholds are set. `answers(images)` returns the logits of all classifiers. `layers` says how many layers each block has.
    Along the depth the finest scales end one by one, where 1 x 1 convolutions also halve the channels: the network is as
    many parts as there are scales, and part i works on all scales but the i - 1 finest.
    """

    def __init__(
        self, layers: Sequence[int], scales: int, width: int, growth: int, head: int, classes: int = 10, bottleneck: bool = True
    ) -> None:  # fmt: skip
        super().__init__()
        factors = [2**scale for scale in range(scales)]
        channels = [width * factor for factor in factors]
        remaining = remaining_scales(sum(layers), scales)
        self.stem = Stem(channels)
        self.blocks, self.classifiers = nn.ModuleList(), nn.ModuleList()
        depth = 0
        for count in layers:
            block = nn.Sequential()
            for kept in remaining[depth : depth + count]:
                ended = len(channels) - kept
                new = [growth * factor for factor in factors[-kept:]]
                narrow = factors[-len(channels) :] if bottleneck else [0] * len(channels)
                block.append(Layer(channels, new, narrow))
                channels = [have + more for have, more in zip(channels[ended:], new, strict=True)]
                if ended:
                    block.append(Each(activated_conv(have, have // 2, 1) for have in channels))
                    channels = [have // 2 for have in channels]
            self.blocks.append(block)
            self.classifiers.append(Classifier(channels[-1], head, classes))
            depth += count
        self.choose = FirstSure(len(layers))

    def forward(self, images: Tensor) -> Tensor:
        return self.choose(*self.answers(images))

    def answers(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits (N, classes) of all classifiers, earliest first."""
        scales, found = self.stem(images), []
        for block, classifier in zip(self.blocks, self.classifiers, strict=True):
            scales = block(scales)
            found.append(classifier(scales[-1]))
        return tuple(found)


class UpTo(nn.Module):
    """An MSDNet up to one of its classifiers, 0 for the first; the modules are shared."""

    def __init__(self, network: MSDNet, classifier: int) -> None:
        super().__init__()
        self.stem, self.blocks = network.stem, network.blocks[: classifier + 1]
        self.classifier = network.classifiers[classifier]

    def forward(self, images: Tensor) -> Tensor:
        scales = self.stem(images)
        for block in self.blocks:
            scales = block(scales)
        return self.classifier(scales[-1])


def activated_conv(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size up to its stride, a batch norm and a ReLU."""
    layer = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), nn.ReLU())


def growing(inside: int, outside: int, bottleneck: int, stride: int = 1) -> nn.Sequential:
    """Return a 3 x 3 convolution, after a 1 x 1 one to at most `bottleneck` x the channels that it makes; without for 0."""
    if not bottleneck:
        return activated_conv(inside, outside, 3, stride)
    narrow = min(inside, bottleneck * outside)
    return nn.Sequential(*activated_conv(inside, narrow, 1), *activated_conv(narrow, outside, 3, stride))


def remaining_scales(layers: int, scales: int) -> list[int]:
    """Return how many scales each of so many layers gives: one less after each of `scales` parts of equal length."""
    part = math.ceil(layers / scales)
    return [scales - layer // part for layer in range(layers)]


def msdnet(
    exits: int = 5, first: int = 1, step: int = 1, even: bool = False, scales: int = 3, width: int = 16, growth: int = 6,
    head: int = 128, bottleneck: bool = True, classes: int = 10,
) -> MSDNet:  # fmt: skip
    """Return an MSDNet with `exits` classifiers, the first after `first` layers.

    Each further block has `step` layers if they are `even`, else `step` more than the block before. At the finest scale
    the first layer has `width` channels and each layer adds `growth`; each coarser scale has twice as many. `head` is the
    width of the classifiers. The paper's networks for CIFAR are those of the defaults with 4 to 8 exits (10 to 36 layers,
    for a mean cost over many samples), and `exits=11, first=4, step=2, even=True` (24 layers, answers at any time).

    Raises BadValue for numbers that make no network.
    """
    least = {"exits": (exits, 2), "first": (first, 1), "step": (step, 1), "scales": (scales, 1), "width": (width, 1)}
    least |= {"growth": (growth, 1 + (scales > 1)), "head": (head, 1), "classes": (classes, 1)}
    for name, (given, lowest) in least.items():
        if given < lowest:
            raise BadValue(f"nets: msdnet: {name} must be {lowest} or more, got {given}.")
    layers = [first + (step * block if not even else (step - first) * (block > 0)) for block in range(exits)]
    if sum(layers) < scales:
        raise BadValue(
            f"nets: msdnet: {scales} scales need as many layers, got {sum(layers)}. Ask for fewer scales, or for more exits."
        )
    return MSDNet(layers, scales, width, growth, head, classes, bottleneck)
