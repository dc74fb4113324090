"""Activations: what a layer reads and gives on calibration data, in memory that does not grow with their number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.network.graph.hooks import before_call
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.network.view import View
from cortado.task.task import Data, Task, to_device

BATCH = 32
MOST_ENTRIES = 2**26
"""Entries of second moments, or of patches, that are held at a time."""


class Enough(BaseException):
    """Ends a forward pass: the layer of interest has been reached.  Not an Exception, lest a network catch it."""


def activations_into(network: nn.Module, path: str, data: Data) -> Iterator[Tensor]:
    """What the layer at `path` reads at its first call, batch by batch; the network runs no further than that."""
    found: list[Tensor] = []

    def seen(layer: nn.Module, activation: Tensor) -> None:
        found.append(activation.detach())
        raise Enough

    hook = before_call(network.get_submodule(path), seen)
    device = device_of(network) or torch.device("cpu")
    try:
        with undisturbed(network):
            for inputs, _ in data.batches(BATCH):
                found.clear()
                run_until_enough(network, to_device(inputs, device))
                yield from found
    finally:
        hook.remove()


def channel_axis(layer: Any, activation: Tensor) -> int:
    """The axis of the channels in what a linear layer or convolution reads or gives, with a batch axis or without."""
    return activation.dim() - 1 - (0 if isinstance(layer, nn.Linear) else len(layer.kernel_size))


def run_until_enough(network: nn.Module, inputs: Any) -> None:
    try:
        call_with(network, inputs)
    except Enough:
        return


def patches(layer: Any, activation: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(rows, inputs x taps): what a layer sees at `count` random positions of each sample, those that are padded too.

    A linear layer sees whole rows. The order of a row is that of `layer.weight.flatten(1)`. An activation without a batch
    axis is one sample.
    """
    if isinstance(layer, nn.Linear):
        rows = activation.reshape(-1, activation.shape[-1])
        most = count * activation.shape[0]
        return rows if len(rows) <= most else rows[torch.randperm(len(rows), generator=generator)[:most]]
    axes = len(layer.kernel_size)
    samples = activation if channel_axis(layer, activation) else activation[None]
    pads = [side for sides in reversed(pads_of(layer)) for side in sides]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(samples, pads, mode=mode) if any(pads) else samples
    sizes = [
        (padded.shape[2 + axis] - layer.dilation[axis] * (layer.kernel_size[axis] - 1) - 1) // layer.stride[axis] + 1
        for axis in range(axes)
    ]
    chosen = torch.randperm(torch.Size(sizes).numel(), generator=generator)[:count]
    places = torch.unravel_index(chosen, sizes)
    taps = []
    for tap in product(*(range(size) for size in layer.kernel_size)):
        at = [places[axis] * layer.stride[axis] + tap[axis] * layer.dilation[axis] for axis in range(axes)]
        taps.append(padded[(slice(None), slice(None), *at)])
    return torch.stack(taps, -1).transpose(1, 2).flatten(2).flatten(0, 1)


def rows_into(network: nn.Module, path: str, data: Data, count: int, generator: torch.Generator) -> Tensor:
    """What the layer at `path` sees at `count` random positions of each sample, (rows, inputs x taps), float64."""
    layer = network.get_submodule(path)
    return torch.cat(
        [patches(layer, s, count, generator).double().cpu() for s in activations_into(network, path, data)]
    )


def pads_of(layer: Any) -> list[tuple[int, int]]:
    """The zeros before and behind each axis."""
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size)
    if layer.padding == "same":
        wide = [step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(width // 2, width - width // 2) for width in wide]
    return [(width, width) for width in layer.padding]


@dataclass(frozen=True)
class Moments:
    """Mean (channels,) and covariance (channels, channels) of rows, float64, on the processor."""

    mean: Tensor
    covariance: Tensor


class Sums:
    """Gathers the moments of rows that come in batches, about the first batch's mean: large means leave no digits."""

    def __init__(self) -> None:
        self.count = 0
        self.start: Any = None
        self.rows: Any = 0.0
        self.matmul_layers: Any = 0.0

    def add(self, rows: Tensor) -> None:
        if not len(rows):
            return
        rows = rows if rows.dtype is torch.float64 else rows.float()
        if self.start is None:
            self.start = rows.mean(0)
        rows = rows - self.start
        self.count += len(rows)
        self.rows = self.rows + rows.double().sum(0)
        self.matmul_layers = self.matmul_layers + (rows.T @ rows).double()

    def moments(self) -> Moments:
        mean = self.rows / self.count
        covariance = self.matmul_layers / self.count - torch.outer(mean, mean)
        return Moments((mean + self.start).cpu(), covariance.cpu())


def collect_activations(network: nn.Module, paths: list[str], data: Data, note: Callable[[str, Tensor], None]) -> None:
    """Hand what each of these layers reads, at its first call, to `note(path, activation)`, batch by batch."""
    seen: set[str] = set()

    def reads(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, activation: Tensor) -> None:
            if path not in seen:
                seen.add(path)
                note(path, activation.detach())

        return hook

    hooks = [before_call(network.get_submodule(path), reads(path)) for path in paths]
    device = device_of(network) or torch.device("cpu")
    try:
        with undisturbed(network):
            for inputs, _ in data.batches(BATCH):
                seen.clear()
                call_with(network, to_device(inputs, device))
    finally:
        for hook in hooks:
            hook.remove()


def layer_places(task: Task, number: int) -> torch.Generator:
    """Where layer `number` is looked at: the same places for every network."""
    return task.generator(6007 + number)


def patch_moments(
    network: nn.Module, numbers: dict[str, int], task: Task, images: int, rows: int
) -> dict[str, Moments]:
    """The moments of what each layer sees, over about `rows` random positions of `images` samples, in one pass.

    `numbers` are the layers' paths, each with a number of its own.
    """
    assert task.calibration is not None
    data = task.calibration.first(images)
    found = {path: Sums() for path in numbers}
    generators = {path: layer_places(task, number) for path, number in numbers.items()}

    def note(path: str, activation: Tensor) -> None:
        found[path].add(patches(network.get_submodule(path), activation, -(-rows // len(data)), generators[path]))

    collect_activations(network, list(numbers), data, note)
    return {path: sums.moments() for path, sums in found.items()}


def in_memory(sizes: list[int]) -> list[list[int]]:
    """Numbers of layers, in order, in groups whose sizes stay within what memory is to hold at a time."""
    groups: list[list[int]] = [[]]
    left = MOST_ENTRIES
    for number, size in enumerate(sizes):
        if size > left and groups[-1]:
            groups.append([])
            left = MOST_ENTRIES
        groups[-1].append(number)
        left -= size
    return groups


def response_moments(view: View, paths: list[str], task: Task, images: int) -> dict[str, Moments]:
    """The moments of what each of these layers gives, over all positions, in one pass."""
    assert task.calibration is not None
    found = {path: Sums() for path in paths}

    def note(sums: Sums) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            rows = output.detach().movedim(channel_axis(layer, output), -1)
            sums.add(rows.reshape(-1, rows.shape[-1]))

        return hook

    hooks = [view.network.get_submodule(path).register_forward_hook(note(sums)) for path, sums in found.items()]
    device = device_of(view.network) or torch.device("cpu")
    try:
        with undisturbed(view.network):
            for inputs, _ in task.calibration.first(images).batches(BATCH):
                call_with(view.network, to_device(inputs, device))
    finally:
        for hook in hooks:
            hook.remove()
    return {path: sums.moments() for path, sums in found.items()}
