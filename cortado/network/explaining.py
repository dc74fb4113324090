"""Explaining: at which layers a changed network begins to differ from the plain one, number by number."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.evaluating import evaluating
from cortado.fitting import own_modules
from cortado.forms.hold import form_of, held_names
from cortado.measure import outputs_of
from cortado.network.trace import device_of, moved
from cortado.signals.affine import Affine
from cortado.signals.signal import OUTPUT, SIDES, signal_at
from cortado.task import Data

WORST = 5


@dataclass(frozen=True)
class LayerError:
    """One layer: how it is held, the error it makes of the plain network's signal, and the error that its output has.

    Errors are the root mean square of the difference over that of the plain output; None where shapes are others.
    """

    path: str
    kind: str
    held: str
    own: float | None
    total: float | None


@dataclass(frozen=True)
class Explained:
    """The layers in running order."""

    layers: tuple[LayerError, ...]
    output: float | None
    """The error of what the network gives."""

    def worst(self) -> list[LayerError]:
        """The layers that add most, the worst first."""
        seen = [layer for layer in self.layers if layer.own]
        return sorted(seen, key=lambda layer: -(layer.own or 0.0))[:WORST]

    def text(self) -> str:
        """A table, and below it where most of the error enters."""
        head = f"{'layer':<32}{'kind':<14}{'held as':<34}{'own error':>10}{'so far':>10}"
        lines = [head, "─" * len(head)]
        for layer in self.layers:
            lines.append(
                f"{layer.path:<32}{layer.kind:<14}{layer.held:<34}{share(layer.own):>10}{share(layer.total):>10}"
            )
        names = ", ".join(f"{layer.path} ({share(layer.own)})" for layer in self.worst())
        close = f"Most of the error enters at {names}." if names else "No layer adds an error of its own."
        return "\n".join([*lines, "", close, f"The outputs differ by {share(self.output)}."])


def share(value: float | None) -> str:
    """A share in per cent for people."""
    return "unknown" if value is None else f"{100 * value:.3g} %"


def explain(plain: nn.Module, network: nn.Module, data: Data, images: int = 32) -> Explained:
    """Compare both networks at every layer on up to `images` samples, in one batch.

    A layer's own error is that of its output when it reads what the plain network's layer read; where it was cut, or
    reads something else than one tensor, it is unknown. Behind layers that were equalized each channel is compared on
    its own scale, and where an unsigned rounding does the work of the ReLU behind it, what is above zero.
    """
    inputs = next(data.batches(min(images, len(data))))[0]
    wanted = listened(plain, inputs)
    found = listened(network, inputs)
    layers = []
    for path, layer in own_modules(network).items():
        if path not in wanted.calls or path not in found.calls:
            continue
        given, out = wanted.calls[path]
        read, made = found.calls[path]
        signal = signal_at(layer, OUTPUT)
        if isinstance(signal, Affine) and not int(signal.zero) and isinstance(out, Tensor):
            out = out.clamp(min=0)
        own = own_error(layer, given, read, out)
        layers.append(LayerError(path, type(layer).__name__, held_as(layer), own, apart_by_channel(made, out)))
    return Explained(tuple(layers), apart(found.output, wanted.output))


@dataclass
class Listened:
    """What went in and came out at the first call of each layer, and the network's output."""

    calls: dict[str, tuple[Any, Any]]
    output: Any = None


def listened(network: nn.Module, inputs: Any) -> Listened:
    """Run a network once and keep what its layers read, before any rounding of theirs, and gave."""
    calls: dict[str, tuple[Any, Any]] = {}
    given: dict[str, Any] = {}

    def before(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            given.setdefault(path, arguments)

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            calls.setdefault(path, (given[path], output))

        return hook

    hooks: list[Any] = []
    for path, module in own_modules(network).items():
        if len(own_modules(module)) == 1:
            hooks.append(module.register_forward_pre_hook(before(path)))
            hooks.append(module.register_forward_hook(after(path)))
    try:
        with evaluating(network):
            output = outputs_of(network, moved(inputs, device_of(network)))
    finally:
        for hook in hooks:
            hook.remove()
    return Listened(calls, output)


def own_error(layer: nn.Module, given: tuple[Any, ...], read: tuple[Any, ...], wanted: Any) -> float | None:
    """What the layer makes of the plain network's signal, on the scales in which it reads it, against the plain layer."""
    if len(given) != 1 or len(read) != 1 or not isinstance(given[0], Tensor) or not isinstance(read[0], Tensor):
        return None
    if read[0].shape != given[0].shape:
        return None
    with evaluating(layer):
        return apart_by_channel(layer(given[0] * scales(read[0], given[0])), wanted)


def scales(found: Tensor, wanted: Tensor) -> Tensor:
    """For each channel the factor that brings `wanted` closest to `found`, if the signal is that of equalized layers.

    It is taken for one where a channel is more than twice or less than half of what it was; else all factors are 1.
    """
    axes = [axis for axis in range(found.dim()) if axis != (1 if found.dim() > 3 else found.dim() - 1)]
    size = wanted.square().sum(axes, keepdim=True)
    factors = (found * wanted).sum(axes, keepdim=True) / size.clamp(min=1e-30)
    factors = torch.where((size > 0) & (factors > 0), factors, torch.ones_like(factors))
    return factors if bool(((factors > 2) | (factors < 0.5)).any()) else torch.ones_like(factors)


def apart_by_channel(found: Any, wanted: Any) -> float | None:
    """`apart`, each channel on the scale of the plain network."""
    if (
        not isinstance(found, Tensor)
        or not isinstance(wanted, Tensor)
        or found.shape != wanted.shape
        or not wanted.dim()
    ):
        return None
    return apart(found / scales(found, wanted), wanted)


def apart(found: Any, wanted: Any) -> float | None:
    """The root mean square of the difference over that of what was wanted; None for other shapes and no tensors."""
    if not isinstance(found, Tensor) or not isinstance(wanted, Tensor) or found.shape != wanted.shape:
        return None
    size = wanted.double().square().mean().sqrt()
    far = (found.double() - wanted.double()).square().mean().sqrt()
    return float(far / size) if size > 0 else (0.0 if far == 0 else None)


def held_as(layer: nn.Module) -> str:
    """Forms and roundings of a layer in a few words: "quantized, input 8 bits"."""
    forms = [type(form_of(layer, name)).__name__.lower() for name in held_names(layer) if name == "weight"]
    signals = [(side, signal_at(layer, side)) for side in SIDES]
    return (
        ", ".join(forms + [f"{side} {signal.bits()} bits" for side, signal in signals if signal is not None]) or "plain"
    )
