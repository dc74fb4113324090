"""Rounded: layer by layer how the activations of a network fill the grids they are rounded to, and what error enters."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cortado.network.compare.explain import explain
from cortado.network.graph.hooks import first_argument
from cortado.network.graph.trace import device_of, moved
from cortado.parts.activations.quantizer import INPUT, OUTPUT, ActivationQuantizer, sites
from cortado.parts.forms.attach import attached_names, form_of
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.quantized import Quantized
from cortado.parts.part import own_modules
from cortado.running.eval_mode import eval_mode
from cortado.task.measure import outputs_of
from cortado.task.task import Data

IMAGES = 32
MOST_KEPT = 2**28
"""Numbers that explaining may keep at once; of large networks fewer samples are looked at."""
MOST_SORTED = 2**16
"""Of an activation's values at one call so many, evenly spaced, tell where 1 % and 99 % lie."""


@dataclass(frozen=True)
class Fill:
    """An activation beside its grid of 2**bits levels: the least value seen, where 1 % and 99 % lie, and the largest.

    `grid` holds the lowest and the highest level, None where these change with the sample. `cut` is the share of the
    values more than half a step outside the grid, so that it clips them. An unsigned grid on a layer's output does a
    ReLU's work as well: there only values above zero count, what is below being zero.
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
        """Half a step outside the grid: what lies farther is clipped."""
        return bounds_of(self.grid, self.bits)


def bounds_of(grid: tuple[float, float] | None, bits: int) -> tuple[float, float] | None:
    """The ends of a grid of 2**bits levels, half a step farther out."""
    if grid is None:
        return None
    half = (grid[1] - grid[0]) / (2**bits - 1) / 2
    return grid[0] - half, grid[1] + half


@dataclass(frozen=True)
class RoundedLayer:
    """A layer that rounds its weight, its activations or both; errors as in LayerError, None for unknown."""

    path: str
    kind: str
    weight_bits: int | None
    activations: tuple[Fill, ...]
    own: float | None
    total: float | None


@dataclass(frozen=True)
class Rounded:
    """The layers that round, in running order; what was seen on so many samples; the error of the outputs."""

    layers: tuple[RoundedLayer, ...]
    samples: int
    output: float | None


def rounded_layers(original: nn.Module, network: nn.Module, data: Data, images: int = IMAGES) -> Rounded | None:
    """What rounding does in each layer of `network`, made from `original`; None for a network that rounds nothing.

    Layers that never run on the samples, or that `original` has not, are left out.
    """
    modules = own_modules(network)
    bits = {path: width for path, layer in modules.items() if (width := weight_bits(layer)) is not None}
    if not bits and not sites(network):
        return None
    paths = {*bits, *(path for path, _ in sites(network))}
    samples = few_enough(network, paths, data, min(images, len(data)))
    explained = explain(original, network, data, samples, paths)
    fills = activations_seen(network, data, samples)
    layers = [
        RoundedLayer(layer.path, layer.kind, bits.get(layer.path), fills.get(layer.path, ()), layer.own, layer.total)
        for layer in explained.layers
    ]
    return Rounded(tuple(layers), samples, explained.output) if layers else None


def weight_bits(layer: nn.Module) -> int | None:
    """Bits of a code of the layer's weights, the widest where there are several; None where none is held in codes."""
    forms = [form_of(layer, name) for name in attached_names(layer)]
    parts = [part for form in forms if form is not None for part in form.modules()]
    levels = [len(part.codebook) for part in parts if isinstance(part, Codebook)]
    levels += [level_count(part.codes) for part in parts if isinstance(part, Quantized) and part.codes.numel()]
    return max((max(1, (count - 1).bit_length()) for count in levels), default=None)


def level_count(codes: Tensor) -> int:
    """How many levels lie from the lowest code to the highest, in the steps that are taken: of -1 and 1 there are two."""
    used = torch.bincount((codes.long() - codes.min().long()).reshape(-1)).nonzero().cpu().numpy()
    return int(used[-1, 0] // max(1, np.gcd.reduce(used[:, 0]))) + 1


def few_enough(network: nn.Module, paths: set[str], data: Data, images: int) -> int:
    """So many samples, at least 1 and at most `images`, that explaining keeps about MOST_KEPT numbers."""
    tried, counted = min(2, images), 0

    def count(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        nonlocal counted
        counted += sum(part.numel() for part in (*given, output) if isinstance(part, Tensor))

    hooks = [layer.register_forward_hook(count) for path, layer in own_modules(network).items() if path in paths]
    run_first_batch(network, data, tried, hooks)
    each = max(1, 2 * counted // tried)
    return max(1, min(images, MOST_KEPT // each))


def run_first_batch(network: nn.Module, data: Data, samples: int, hooks: list[Any]) -> None:
    """Run the first samples as one batch, then take the hooks off."""
    try:
        with eval_mode(network):
            outputs_of(network, moved(next(data.batches(samples))[0], device_of(network)))
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Seen:
    """What has passed one rounding so far: finite values only."""

    low: float = np.inf
    high: float = -np.inf
    count: int = 0
    outside: int = 0
    some: list[Tensor] = field(default_factory=list)

    def add(self, values: Tensor, bounds: tuple[float, float] | None) -> None:
        """Take in the values of one call; those outside of `bounds` are counted."""
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
        """What was seen beside the grid."""
        first, last = (float(end) for end in np.quantile(torch.cat(self.some).numpy(), (0.01, 0.99)))
        grid = quantizer.ends()
        cut = None if grid is None else self.outside / self.count
        return Fill(side, quantizer.bits(), self.low, first, last, self.high, grid, cut)


def activations_seen(network: nn.Module, data: Data, samples: int) -> dict[str, tuple[Fill, ...]]:
    """For each layer with rounded activations that runs: its input and output as they come to be rounded, at every call."""
    modules, found = dict(network.named_modules()), sites(network)
    seen = {place: Seen() for place in found}
    hooks: list[Any] = []
    for (path, side), quantizer in found.items():
        note = noting(seen[path, side], quantizer, side)
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


def noting(seen: Seen, quantizer: ActivationQuantizer, side: str) -> Callable[[Any], None]:
    """Adds an activation to what was seen, as the grid of that side looks at it."""
    grid = quantizer.ends()
    bounds = bounds_of(grid, quantizer.bits())
    unsigned = side == OUTPUT and grid is not None and grid[0] == 0

    def note(values: Any) -> None:
        if isinstance(values, Tensor) and values.is_floating_point():
            seen.add(values.clamp(min=0) if unsigned else values, bounds)

    return note


def on_input(note: Callable[[Any], None]) -> Callable[..., None]:
    """A hook that notes the first argument."""

    def hook(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if given or named:
            note(first_argument(layer, given, named))

    return hook


def on_output(note: Callable[[Any], None]) -> Callable[..., None]:
    """A hook that notes what a layer gives."""
    return lambda layer, given, output: note(output)
