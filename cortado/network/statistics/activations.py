"""Activations: the inputs and outputs of layers on calibration data, in memory independent of the amount of data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.kinds import kind_of
from cortado.network.graph.hooks import before_call
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.network.view import View
from cortado.running.trees import to_device
from cortado.task.data import Data
from cortado.task.task import Task

BATCH = 32
MOST_ENTRIES = 2**26
"""Most entries of second moments, or of patches, kept together."""


class Enough(BaseException):
    """Ends a forward pass once the layer has been reached.  Not an Exception, so that a network does not catch it."""


def activations_into(network: nn.Module, path: str, data: Data) -> Iterator[Tensor]:
    """Yield the input of the layer at `path` at its first call, batch by batch; the network stops there."""
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


def channel_axis(layer: nn.Module, activation: Tensor) -> int:
    """Return the channel axis in the input or output of a linear layer or convolution, with or without a batch axis."""
    kind = kind_of(layer)
    return activation.dim() - 1 - (0 if kind is None else kind.spatial)


def run_until_enough(network: nn.Module, inputs: Any) -> None:
    try:
        call_with(network, inputs)
    except Enough:
        return


def patches(layer: nn.Module, activation: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return (rows, inputs x taps): the layer's inputs at `count` random positions of each sample, padded ones
    included.

    A linear layer gives whole rows. The order within a row is that of `layer.weight.flatten(1)`. An activation
    without a batch axis is one sample.
    """
    kind = kind_of(layer)
    assert kind is not None and kind.patches is not None
    return kind.patches(layer, activation, count, generator)


def rows_into(network: nn.Module, path: str, data: Data, count: int, generator: torch.Generator) -> Tensor:
    """Return the inputs at `path` at `count` random positions of each sample, (rows, inputs x taps), float64."""
    layer = network.get_submodule(path)
    return torch.cat(
        [patches(layer, s, count, generator).double().cpu() for s in activations_into(network, path, data)]
    )


def rows_of_layers(network: nn.Module, seeds: dict[str, int], data: Data, count: int, task: Task) -> Iterator[Tensor]:
    """Yield what `rows_into` returns for each of these paths, in order, with as few passes as memory allows.

    `seeds`: for the positions of each layer. The network must stay as it is until all are read.
    """
    paths = list(seeds)
    layers = {path: network.get_submodule(path) for path in paths}
    widths = [getattr(one, "groups", 1) * one.weight[0].numel() for one in layers.values()]  # type: ignore[index, union-attr]
    for group in in_memory([width * count * len(data) for width in widths]):
        together = {paths[number]: task.generator(seeds[paths[number]]) for number in group}
        yield from rows_together(network, together, data, count)


def rows_together(network: nn.Module, places: dict[str, torch.Generator], data: Data, count: int) -> Iterator[Tensor]:
    """Yield the inputs of some layers at random positions, (rows, inputs x taps) float64 each, from one pass."""
    found: dict[str, list[Tensor]] = {path: [] for path in places}

    def note(path: str, activation: Tensor) -> None:
        found[path].append(patches(network.get_submodule(path), activation, count, places[path]).cpu())

    collect_activations(network, list(places), data, note)
    for path in places:
        yield torch.cat(found.pop(path)).double()


@dataclass(frozen=True)
class Moments:
    """Mean (channels,) and covariance (channels, channels) of rows, float64, on the CPU."""

    mean: Tensor
    covariance: Tensor


class Sums:
    """Accumulates moments over batches about the first batch's mean, since large means would cost precision."""

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
    """Pass the input of each of these layers, at its first call, to `note(path, activation)`, batch by batch."""
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
    """Return the generator of random positions for layer `number`: the same positions for every network."""
    return task.generator(6007 + number)


def patch_moments(
    network: nn.Module, numbers: dict[str, int], task: Task, images: int, rows: int
) -> dict[str, Moments]:
    """Return the moments of each layer's inputs, over about `rows` random positions of `images` samples, in one pass.

    `numbers` maps each layer's path to a number of its own.
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
    """Return layer numbers, in order, in groups whose total sizes fit the memory limit."""
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
    """Return the moments of each of these layers' outputs, over all positions, in one pass."""
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
