"""Cortado's blocks as docs/file.md describes them: which tensors they have, and what they keep."""

import zlib
from collections.abc import Callable

import torch
from torch import nn


class Bypass(nn.Module):
    """A removed module."""

    keeps = False


class ScaleShift(nn.Module):
    """A folded batch norm."""

    keeps = False

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))


class SharedNorm(nn.Module):
    """A batch norm for the orientations of channels."""

    keeps = False

    def __init__(self, channels: int, eps: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(channels, eps * 1e-9)


class OrientationMax(nn.Module):
    """A linear layer behind the largest of four."""

    keeps = False

    def __init__(self, channels: int, outputs: int, biased: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, outputs, bool(biased))


class Keeping(nn.Module):
    """A block with the module of its place inside, first among its children."""

    keeps = True

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class Exit(Keeping):
    """A head beside a whole network; the names of its tensors hold the path of the module that it reads."""

    def __init__(
        self, inner: nn.Module, place: int, axes: int, channels: int, convolutions: int, width: int, classes: int, rule: int
    ) -> None:  # fmt: skip
        super().__init__(inner)
        (path,) = [one for one in paths_inside(inner) if zlib.crc32(one.encode()) % 2**24 == place]
        steps: list[nn.Module] = []
        for number in range(convolutions):
            steps += [nn.Conv2d(width if number else channels, width, 3, 2, 1), nn.ReLU()]
        head = nn.Module()
        head.convolutions = nn.Sequential(*steps)
        head.linear = nn.Linear(width if convolutions else channels, classes)
        head.sure = nn.Module()
        head.sure.register_buffer("thresholds", torch.zeros(1))
        # A module that has no tensors, but a number of its own.
        head.sure.choices = nn.ModuleList([nn.Module()])
        self.add_module(f"exit_{path.replace('.', '_')}", head)


class Gate(Keeping):
    """Two linear layers beside a module."""

    def __init__(self, inner: nn.Module, channels: int, hidden: int, channels_last: int) -> None:
        super().__init__(inner)
        self.gate_opens, self.gate_rows = nn.Module(), nn.Module()
        self.gate_opens.read, self.gate_opens.decide = nn.Linear(channels, hidden), nn.Linear(hidden, 1)


class Ponder(Keeping):
    """A score for each module of a chain but the last."""

    def __init__(self, inner: nn.Module, blocks: int, axes: int, channels: int, by: int, kernel: int) -> None:
        super().__init__(inner)
        self.ponder_scores = nn.ModuleList(nn.Module() for _ in range(blocks - 1))
        for score in self.ponder_scores:
            score.pooled = nn.Linear(channels, 1)
            if by:
                score.near = nn.Conv2d(channels, 1, kernel, bias=False)
        self.ponder_choices, self.ponder_cost = nn.ModuleList(nn.Module() for _ in range(blocks - 1)), nn.Module()


class Experts(Keeping):
    """A router and a mean for each group of the neurons between two linear layers."""

    def __init__(
        self, inner: nn.Module, first: int, second: int, act: int, experts: int, chosen: int, width: int, weighting: int,
        noisy: int,
    ) -> None:  # fmt: skip
        super().__init__(inner)
        layers = {zlib.crc32(path.encode()) % 2**24: one for path, one in inner.named_modules() if path}
        self.expert_router, self.expert_chain = nn.Module(), nn.Module()
        self.expert_router.hidden = nn.Linear(layers[first].in_features, width)
        self.expert_router.scores = nn.Linear(width, experts)
        if noisy:
            self.expert_router.noise = nn.Linear(width, experts)
        self.expert_chain.means = nn.Parameter(torch.zeros(experts, layers[second].out_features))
        self.expert_chain.each = nn.ModuleList(nn.Module() for _ in range(experts))
        for one in self.expert_chain.each:
            one.choose = nn.Module()


def picks(count: int) -> nn.Module:
    """A buffer of places."""
    made = nn.Module()
    made.register_buffer("index", torch.zeros(count, dtype=torch.int64))
    return made


class Grouped(nn.Module):
    """A convolution in groups, with or without an index of what it reads and returns."""

    keeps = False

    def __init__(
        self, inputs: int, outputs: int, groups: int, biased: int, reads: int, returns: int, high: int, wide: int,
        *window: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if reads:
            self.before = picks(inputs)
        pairs = window[:2], window[2:4], window[4:]
        self.conv = nn.Conv2d(inputs, outputs, (high, wide), *pairs, groups, bool(biased))
        if returns:
            self.after = picks(outputs)


class FireModule(nn.Module):
    """A squeeze, and one or two convolutions side by side."""

    keeps = False

    def __init__(
        self, inputs: int, squeezed: int, points: int, others: int, biased: int, rectified: int, returns: int,
        high: int, wide: int, *window: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1, bias=bool(rectified))
        if points:
            self.point = nn.Conv2d(squeezed, points, 1, bias=bool(biased))
        if others:
            self.expand = nn.Conv2d(squeezed, others, (high, wide), bias=bool(biased))
        if returns:
            self.after = picks(points + others)


class PooledLinear(nn.Module):
    """A linear layer on means."""

    keeps = False

    def __init__(self, channels: int, places: int, outputs: int, biased: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, outputs, bool(biased))


def paths_inside(module: nn.Module, path: str = "") -> list[str]:
    """The paths of a network's own modules, as before any block kept them."""
    found = [path] if path else []
    for name, child in module._modules.items():
        same = name == "inner" and getattr(module, "keeps", False)
        found += paths_inside(child, path if same else f"{path}.{name}".lstrip("."))
    return found


BLOCKS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "9eb9": (Bypass, 0), "6cca": (ScaleShift, 2), "0beb": (SharedNorm, 2), "ee9b": (OrientationMax, 3), "e328": (Exit, 7),
    "c419": (Experts, 8), "7847": (Ponder, 5), "4e63": (Gate, 3), "7df0": (FireModule, 15), "6be4": (Grouped, 14),
    "91b6": (PooledLinear, 4),
}  # fmt: skip
"""How it is made, and its facts, by key."""
