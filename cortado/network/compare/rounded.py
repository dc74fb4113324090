"""Rounded: for each layer, how its activations use their quantization grids and how much error enters."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cortado.network.compare.explain import explain
from cortado.network.graph.hooks import first_argument
from cortado.network.graph.trace import device_of
from cortado.parts.activations.quantizer import INPUT, OUTPUT, ActivationQuantizer, sites
from cortado.parts.forms.attach import attached_names, form_of
from cortado.parts.part import own_modules
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.data import Data

IMAGES = 32
MOST_KEPT = 2**28
"""Most values that explaining keeps together; for large networks fewer samples are used."""
MOST_SORTED = 2**16
"""Most values of an activation per call, evenly spaced, from which the 1 % and 99 % quantiles are estimated."""


@dataclass(frozen=True)
class Fill:
    """An activation's minimum, 1 % and 99 % quantiles and maximum, next to its grid of 2**bits levels.

    `grid` holds the lowest and the highest level, None where they depend on the sample. `cut` is the share of values
    more than half a step outside the grid, which it clips. An unsigned grid on a layer's output also acts as its
    ReLU: only values above zero count then, the others being zero.
    """

    side: str
    bits: int
    low: float
    first: float
    last: float
    high: float
    grid: tuple[float, float] | None
    cut: float | None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Return the grid's ends, half a step farther out: values beyond them are clipped."""
        return bounds_of(self.grid, self.bits)


def bounds_of(grid: tuple[float, float] | None, bits: int) -> tuple[float, float] | None:
    """Return the ends of a grid of 2**bits levels, half a step farther out."""
    if grid is None:
        return None
    half = (grid[1] - grid[0]) / (2**bits - 1) / 2
    return grid[0] - half, grid[1] + half


@dataclass(frozen=True)
class RoundedLayer:
    """A layer with quantized weights, activations or both; errors as in LayerError, None for unknown."""

    path: str
    kind: str
    weight_bits: int | None
    activations: tuple[Fill, ...]
    own: float | None
    total: float | None


@dataclass(frozen=True)
class Rounded:
    """The quantized layers in running order, the number of samples used, and the error of the outputs."""

    layers: tuple[RoundedLayer, ...]
    samples: int
    output: float | None


def rounded_layers(original: nn.Module, network: nn.Module, data: Data, images: int = IMAGES) -> Rounded | None:
    """Return the effect of quantization in each layer of `network`, made from `original`; None if nothing is
    quantized.

    Omits layers that never run on the samples or that `original` does not have.
    """
    paths, modules = rounded_paths(network), own_modules(network)
    if not paths:
        return None
    samples = few_enough(network, paths, data, min(images, len(data)))
    explained = explain(original, network, data, samples, paths)
    fills = activation_fills(network, data, samples)
    layers = [
        RoundedLayer(
            layer.path, layer.kind, weight_bits(modules[layer.path]), fills.get(layer.path, ()), layer.own, layer.total
        )
        for layer in explained.layers
    ]
    return Rounded(tuple(layers), samples, explained.output) if layers else None


def rounded_paths(network: nn.Module) -> set[str]:
    """Return the paths of layers with quantized weights or activations."""
    coded = {path for path, layer in own_modules(network).items() if weight_bits(layer) is not None}
    return coded | {path for path, _ in sites(network)}


def weight_bits(layer: nn.Module) -> int | None:
    """Return the bits per code of the layer's weights, the widest of several; None where no weight has codes."""
    forms = [form_of(layer, name) for name in attached_names(layer)]
    return max((width for form in forms if form is not None and (width := form.code_bits()) is not None), default=None)


def few_enough(network: nn.Module, paths: set[str], data: Data, images: int) -> int:
    """Return the number of samples, 1 to `images`, for which explaining keeps about MOST_KEPT values."""
    tried, counted = min(2, images), 0

    def count(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        nonlocal counted
        counted += sum(part.numel() for part in (*given, output) if isinstance(part, Tensor))

    hooks = [layer.register_forward_hook(count) for path, layer in own_modules(network).items() if path in paths]
    run_first_batch(network, data, tried, hooks)
    each = max(1, 2 * counted // tried)
    return max(1, min(images, MOST_KEPT // each))


def run_first_batch(network: nn.Module, data: Data, samples: int, hooks: list[Any]) -> None:
    """Run the first samples as one batch, then remove the hooks."""
    try:
        with eval_mode(network):
            call(network, to_device(next(data.batches(samples))[0], device_of(network)))
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Seen:
    """Statistics of the finite values that have passed one quantizer."""

    low: float = np.inf
    high: float = -np.inf
    count: int = 0
    outside: int = 0
    some: list[Tensor] = field(default_factory=list)

    def add(self, values: Tensor, bounds: tuple[float, float] | None) -> None:
        """Add the values of one call; count those outside `bounds`."""
        values = values.reshape(-1)
        if not bool(torch.isfinite(values).all()):
            values = values[torch.isfinite(values)]
        if not values.numel():
            return
        low, high = (float(end) for end in values.aminmax())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.count += values.numel()
        if bounds is not None and (low < bounds[0] or high > bounds[1]):
            self.outside += int(((values < bounds[0]) | (values > bounds[1])).sum())
        self.some.append(values[:: -(-values.numel() // MOST_SORTED)].float().cpu())

    def fill(self, side: str, quantizer: ActivationQuantizer) -> Fill:
        """Return the statistics next to the grid."""
        first, last = (float(end) for end in np.quantile(torch.cat(self.some).numpy(), (0.01, 0.99)))
        grid = quantizer.ends()
        cut = None if grid is None else self.outside / self.count
        return Fill(side, quantizer.bits(), self.low, first, last, self.high, grid, cut)


def activation_fills(network: nn.Module, data: Data, samples: int) -> dict[str, tuple[Fill, ...]]:
    """Return, for each layer with activation quantizers that runs, the statistics of their inputs over all calls."""
    modules, found = dict(network.named_modules()), sites(network)
    seen = {place: Seen() for place in found}
    hooks: list[Any] = []
    for (path, side), quantizer in found.items():
        note = note_into(seen[path, side], quantizer, side)
        layer = modules[path]
        if side == INPUT:
            hooks.append(layer.register_forward_pre_hook(on_input(note), with_kwargs=True, prepend=True))
        else:
            hooks.append(layer.register_forward_hook(on_output(note), prepend=True))
    run_first_batch(network, data, samples, hooks)
    fills: dict[str, tuple[Fill, ...]] = {}
    for (path, side), quantizer in found.items():
        if seen[path, side].count:
            fills[path] = (*fills.get(path, ()), seen[path, side].fill(side, quantizer))
    return fills


def note_into(seen: Seen, quantizer: ActivationQuantizer, side: str) -> Callable[[Any], None]:
    """Return a function that adds an activation, as that side's grid sees it, to `seen`."""
    grid = quantizer.ends()
    bounds = bounds_of(grid, quantizer.bits())
    unsigned = side == OUTPUT and grid is not None and grid[0] == 0

    def note(values: Any) -> None:
        if isinstance(values, Tensor) and values.is_floating_point():
            seen.add(values.clamp(min=0) if unsigned else values, bounds)

    return note


def on_input(note: Callable[[Any], None]) -> Callable[..., None]:
    """Return a hook that passes the first argument to `note`."""

    def hook(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if given or named:
            note(first_argument(layer, given, named))

    return hook


def on_output(note: Callable[[Any], None]) -> Callable[..., None]:
    """Return a hook that passes a layer's output to `note`."""
    return lambda layer, given, output: note(output)
