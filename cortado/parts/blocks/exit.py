"""Exit: stands around a whole network and answers for the samples that are sure after one of its modules."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar
from zlib import crc32

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue
from cortado.parts.blocks.block import INNER, ORIGINAL, Block
from cortado.parts.blocks.rows import RULES, FirstSure
from cortado.parts.part import Arrays

CHANNEL_AXIS = {2: 1, 3: 2, 4: 1}
"""The axis of channels by the number of axes of a value: (N, C), (N, L, C), (N, C, H, W)."""
MOST_CONVOLUTIONS = 3
MARK = 2**24


class Head(nn.Module):
    """Logits from a module's output: `convolutions` of stride 2 for pictures, the mean over all places, a linear layer."""

    def __init__(self, axes: int, channels: int, convolutions: int, width: int, classes: int, rule: str) -> None:
        super().__init__()
        self.axes = axes
        widths = [channels, *[width] * convolutions]
        steps: list[nn.Module] = []
        for given, made in pairwise(widths):
            steps += [nn.Conv2d(given, made, 3, 2, 1), nn.ReLU()]
        self.convolutions = nn.Sequential(*steps)
        self.linear = nn.Linear(widths[-1], classes)
        self.sure = FirstSure(2, rule)

    def forward(self, values: Tensor) -> Tensor:
        """Return (samples, classes) logits."""
        values = self.convolutions(values)
        places = {2: (), 3: (1,), 4: (2, 3)}[self.axes]
        return self.linear(values.mean(places) if places else values)


@dataclass(frozen=True)
class ExitFacts:
    """What an exit is: the path of its module and the checksum of that, and the sizes of its head."""

    at: str
    place: int
    axes: int
    channels: int
    convolutions: int
    width: int
    classes: int
    rule: int


class Exit(Block):
    """An early exit: a head on the output of one module; samples whose confidence passes a threshold leave with its answer.

    BranchyNet (Teerapittayanon, McDanel, Kung, 2016).  It stands in the place of the whole network. Several stand around
    each other, the earliest outermost. `axes` and `channels` are those of the module's output. The module is known by a
    checksum of its path, `place`, because numbers of modules change when blocks are removed.
    """

    facts = ("place", "axes", "channels", "convolutions", "width", "classes", "rule")
    arrays: ClassVar[dict[str, str]] = {INNER: ORIGINAL}

    def __init__(
        self, inner: nn.Module, at: str, axes: int, channels: int, classes: int,
        convolutions: int = 0, width: int = 64, rule: str = "top",
    ) -> None:  # fmt: skip
        """Raises BadValue for sizes out of range, BadNetwork where there is no module `at`."""
        super().__init__()
        if axes not in CHANNEL_AXIS or min(channels, width) < 1 or classes < 2:
            raise BadValue(
                f"blocks/exit: it reads values of 2, 3 or 4 axes and answers with two classes or more, got {axes} axes, "
                f"{channels} channels, width {width}, {classes} classes."
            )
        if not 0 <= convolutions <= (MOST_CONVOLUTIONS if axes == 4 else 0):
            raise BadValue(
                f"blocks/exit: convolutions must lie in 0..{MOST_CONVOLUTIONS}, and be 0 for values that are no pictures, "
                f"got {convolutions} for {axes} axes."
            )
        if at not in dict(inner.named_modules()) or not at:
            raise BadNetwork(f"blocks/exit: there is no module {at!r} after which to leave.")
        self.inner = inner
        # One attribute and one name for the head: any other could be that of a module of the network.
        self.exit_facts = ExitFacts(at, path_mark(at), axes, channels, convolutions, width, classes, RULES.index(rule))
        self.add_module(head_name(at), Head(axes, channels, convolutions, width, classes, rule))

    def spec(self) -> dict[str, int]:
        return {name: getattr(self.exit_facts, name) for name in self.facts}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Exit":
        inner, facts = parts[INNER], dict(spec)
        found = [path for path, _ in inner.named_modules() if path and path_mark(path) == facts["place"]]
        if len(found) != 1 or facts["rule"] >= len(RULES):
            raise BadValue("blocks/exit: the module after which samples leave is not there.")
        del facts["place"]
        return cls(inner, found[0], **facts | {"rule": RULES[facts["rule"]]})  # type: ignore[arg-type]

    def forward(self, *given: Any, **named: Any) -> Any:
        """Return the network's output, for sure samples that of the head."""
        seen: list[Tensor] = []
        at = self.exit_facts.at
        handle = self.inner.get_submodule(at).register_forward_hook(lambda _, inputs, output: seen.append(output))
        try:
            outputs = self.inner(*given, **named)
        finally:
            handle.remove()
        if not seen:
            raise BadNetwork(f"blocks/exit: {at} did not run, so that no sample can leave after it.")
        head = exit_head(self)
        return head.sure(head(seen[0]), outputs)


def head_name(at: str) -> str:
    """Return what the head after a module is called in the network: exit_layer2_8."""
    return f"exit_{at.replace('.', '_')}"


def exit_head(block: Exit) -> Head:
    """Return the head of an exit."""
    return block._modules[head_name(block.exit_facts.at)]  # type: ignore[return-value]


def path_mark(path: str) -> int:
    """Return the checksum of a path, below 2**24."""
    return crc32(path.encode()) % MARK
