"""Layer times: a cached table of the time of convolutions and linear layers in a runtime on this machine, by shape."""

import contextlib
import dataclasses
import json
import math
import tempfile
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado.errors import BadFile, BadValue, CortadoError
from cortado.file.whole import make_folder, write_whole
from cortado.layers.conv import convolution_class, pads_of
from cortado.layers.kinds import is_convolution
from cortado.lowering.lower import lowered
from cortado.machine import cache_folder, instruction_sets, processor_name
from cortado.runtimes.measured import batch_of, bound
from cortado.runtimes.runtime import Runtime
from cortado.runtimes.timing import Call, interleaved

SECONDS = 0.1
"""Seconds of timing per shape."""
PATIENCE = 90.0
"""Default limit in seconds for measuring a table in one run."""
SHARES = (0.25, 0.5, 1.0)
"""Shares of a layer's channels that are measured; times between them are interpolated."""


@dataclass(frozen=True)
class LayerShape:
    """The facts that a layer's time depends on: channels in and out, and `size`, the axes of its input besides batch and
    channels. Without a `kernel` it is a linear layer."""

    inputs: int
    outputs: int
    size: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    def text(self) -> str:
        """Return the key in the table, such as "16>32 k3x3 s2x2 p1x1 d1x1 g1 @32x32"."""
        facts = (("k", self.kernel), ("s", self.stride), ("p", self.padding), ("d", self.dilation))
        words = [letter + "x".join(map(str, value)) for letter, value in facts if value]
        return " ".join(
            [f"{self.inputs}>{self.outputs}", *words, f"g{self.groups}", f"@{'x'.join(map(str, self.size))}"]
        )

    def network(self) -> nn.Module:
        """Return the layer with a ReLU, which runtimes fuse, and deterministic weights."""
        kind: Any = convolution_class(len(self.kernel)) if self.kernel else nn.Linear
        facts = (self.kernel, self.stride, self.padding, self.dilation, self.groups) if self.kernel else ()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return nn.Sequential(kind(self.inputs, self.outputs, *facts), nn.ReLU()).eval()

    def example(self) -> torch.Tensor:
        """Return two samples; channels come last for a linear layer."""
        generator = torch.Generator().manual_seed(0)
        shape = (2, self.inputs, *self.size) if self.kernel else (2, *self.size, self.inputs)
        return torch.randn(shape, generator=generator)

    def of(self, inputs: float, outputs: float) -> "LayerShape":
        """Return the shape with other channel counts; a grouped layer changes its number of groups."""
        if self.groups == 1:
            return dataclasses.replace(self, inputs=max(1, round(inputs)), outputs=max(1, round(outputs)))
        groups = max(1, round(self.groups * inputs / self.inputs))
        each, made = self.inputs // self.groups, self.outputs // self.groups
        return dataclasses.replace(self, inputs=groups * each, outputs=groups * made, groups=groups)


LEAST = LayerShape(1, 1)
STANDARD = LayerShape(64, 64, (32, 32), (3, 3), (1, 1), (1, 1), (1, 1))


def call_shape(layer: nn.Module, given: Sequence[int], batch: int = 1) -> tuple[LayerShape, float] | None:
    """Return the shape of a layer called with an input of shape `given` for `batch` samples, and its runs per sample.

    None for layers other than convolutions and linear layers, and for asymmetric padding.
    """
    if isinstance(layer, nn.Linear):
        rows = prod(given[:-1]) // batch
        return LayerShape(layer.in_features, layer.out_features, (rows,) if rows > 1 else ()), 1.0
    if is_convolution(layer):
        made: Any = layer
        pads = pads_of(made)
        if any(before != behind for before, behind in pads):
            return None
        kernel, stride, dilation = (tuple(one) for one in (made.kernel_size, made.stride, made.dilation))
        size, padding = tuple(given[2:]), tuple(before for before, _ in pads)
        shape = LayerShape(given[1], made.out_channels, size, kernel, stride, padding, dilation, made.groups)
        return shape, given[0] / batch
    return None


@dataclass
class LayerTimes:
    """The table of one runtime with `threads` threads, for one sample.

    Stored in `folder` (default: Cortado's cache) under a name with a hash of the processor and the runtime's version.
    """

    runtime: Runtime
    threads: int = 1
    folder: Path | None = None
    patience: float = PATIENCE
    standards: list[Call] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        facts = (processor_name(), instruction_sets(), self.runtime.name(), self.runtime.version(), self.threads)
        name = f"{self.runtime.name()}_{blake2b(repr(facts).encode(), digest_size=6).hexdigest()}.json"
        self.path = (self.folder or cache_folder() / "times") / name
        self.known = self.kept()

    def kept(self) -> dict[str, float]:
        """Return the table in the file.  Raises BadFile if it is not a table of times."""
        try:
            found = json.loads(self.path.read_text("utf8")) if self.path.exists() else {}
            table = {str(key): float(value) for key, value in found.items()}
            if not all(0 <= value < math.inf for value in table.values()):
                raise ValueError("a time is not a number of milliseconds")
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise BadFile(f"times: {self.path} is damaged ({error}). Delete it to measure again.") from error
        return table

    def ms(self, shape: LayerShape) -> float:
        """Return the milliseconds for one sample, without the overhead of a call; measure them if unknown.

        Raises what exporting raises, and BadValue if the table takes longer than `patience` (seconds).
        """
        if shape.text() not in self.known:
            if self.patience <= 0:
                raise BadValue(
                    f"times: the table of {self.runtime.name()} took {PATIENCE:g} s and is not complete. "
                    "Measurements so far are stored: try again to continue."
                )
            start = time.perf_counter()
            self.known[shape.text()] = self.measured(shape)
            self.patience -= time.perf_counter() - start
            self.keep()
        return self.known[shape.text()]

    def keep(self) -> None:
        """Write the table, merged with entries of other processes; keep it in memory if the folder is not writable."""
        self.known |= self.kept()
        with contextlib.suppress(OSError, CortadoError):
            make_folder(self.path.parent)
            write_whole(self.path, json.dumps(self.known, indent=0).encode())

    def measured(self, shape: LayerShape) -> float:
        """Measure a shape, interleaved with a minimal network (the overhead of a call) and a standard layer.

        Times are relative to the standard layer, so that a temporary slowdown of the machine affects both.
        """
        if not self.standards:
            self.standards = [self.call(LEAST), self.call(STANDARD)]
        # The fastest round was not interrupted.
        least, standard, own = interleaved([*self.standards, self.call(shape)], SECONDS).min(0).tolist()
        whole = self.known.setdefault(STANDARD.text(), standard - least)
        return max(0.0, whole * (own - least) / max(standard - least, 1e-9))

    def call(self, shape: LayerShape) -> Call:
        """Return a call of an exported layer of this shape on one sample."""
        with tempfile.TemporaryDirectory() as folder:
            example = shape.example()
            file = self.runtime.lower(lowered(shape.network(), example), example, Path(folder))
            return bound(self.runtime.load(file, self.threads), batch_of(example, 1))

    def between(self, whole: LayerShape, inputs: float, outputs: float) -> float:
        """Return the milliseconds of a layer with fewer channels, interpolated between the measured shares."""
        given = weighed(inputs / whole.inputs)
        # A grouped layer's outputs shrink with its inputs.
        made = weighed(outputs / whole.outputs) if whole.groups == 1 else None
        total = 0.0
        for share, weight in given:
            for other, factor in made or [(share, 1.0)]:
                total += weight * factor * self.ms(whole.of(share * whole.inputs, other * whole.outputs))
        return max(0.0, total)


def weighed(share: float) -> list[tuple[float, float]]:
    """Return the measured shares around a share with their weights; extrapolates below the smallest."""
    if share in SHARES:
        return [(share, 1.0)]
    place = min(max(bisect_left(SHARES, share), 1), len(SHARES) - 1)
    low, high = SHARES[place - 1], SHARES[place]
    weight = (share - low) / (high - low)
    return [(low, 1 - weight), (high, weight)]
