"""Explain: at which layers a changed network starts to differ from the original, and by how much."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.network.graph.trace import device_of
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import INPUT, OUTPUT, SIDES, quantizer_at, sites
from cortado.parts.forms.attach import attached_names, form_of
from cortado.parts.part import own_modules
from cortado.running.brought import accept
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.table import aligned
from cortado.task.data import Data
from cortado.task.metric import first_floats

WORST = 5
LEFT = 0.25
"""Largest remaining share of the squared error at which a channel counts as rescaled."""


@dataclass(frozen=True)
class LayerError:
    """One layer: its form, the error it adds to the original network's activation, and the error of its output.

    Errors are the root mean square of the difference divided by that of the original output; None where shapes
    differ.
    """

    path: str
    kind: str
    attached: str
    own: float | None
    total: float | None


@dataclass(frozen=True)
class ExplainedNetwork:
    """The layers in running order."""

    layers: tuple[LayerError, ...]
    output: float | None
    """The error of the network's output."""

    def worst(self) -> list[LayerError]:
        """Return the layers that add most, the worst first."""
        seen = [layer for layer in self.layers if layer.own]
        return sorted(seen, key=lambda layer: -(layer.own or 0.0))[:WORST]

    def text(self) -> str:
        """Return a table, followed by the layers where most of the error enters."""
        rows = [("layer", "kind", "form", "own error", "so far")]
        rows += [(one.path, one.kind, one.attached, share_text(one.own), share_text(one.total)) for one in self.layers]
        names = ", ".join(f"{layer.path} ({share_text(layer.own)})" for layer in self.worst())
        close = f"Most of the error enters at {names}." if names else "No layer adds an error of its own."
        return "\n".join([aligned(rows, "<<<>"), "", close, f"The outputs differ by {share_text(self.output)}."])


def share_text(value: float | None) -> str:
    """Return a share as a percentage."""
    return "unknown" if value is None else f"{100 * value:.3g} %"


def explain(
    original: nn.Module, network: nn.Module, data: Data, images: int = 32, paths: Collection[str] | None = None
) -> ExplainedNetwork:
    """Compare both networks at every layer, or at those of `paths`, on up to `images` samples, in one batch.

    A layer's own error is the error of its output when it reads the original layer's input. It is unknown where the
    layer was cut, reads anything but one tensor, or cannot run alone. Layers with inner layers count only for their
    input or output quantizer, whichever error is larger. Only the first call of a layer counts. After equalized
    layers each channel is compared on its own scale; where an unsigned quantizer replaces the ReLU after it, only the
    positive part is compared.
    """
    for one in (original, network):
        accept(one, "explain")
    inputs = next(data.batches(min(images, len(data))))[0]
    chosen = compared_places(network) if paths is None else paths
    wanted, found = listened(original, inputs, chosen), listened(network, inputs, chosen)
    modules, layers = own_modules(network), []
    for path, ran in found.calls.items():
        if path not in wanted.calls:
            continue
        layer, there = modules[path], wanted.calls[path]
        out = passed_above_zero(layer, there.made)
        own = own_error(layer, there.given, ran.given, out) if leaf(layer) else quantizers_error(layer, ran, there)
        layers.append(
            LayerError(path, type(layer).__name__, form_name(layer), own, difference_by_channel(ran.made, out))
        )
    return ExplainedNetwork(tuple(layers), relative_error(found.output, wanted.output))


def leaf(layer: nn.Module) -> bool:
    """Return whether a layer has no inner layers."""
    return len(own_modules(layer)) == 1


def compared_places(network: nn.Module) -> set[str]:
    """Return the paths of layers without inner layers and of those with input or output quantizers."""
    return {path for path, layer in own_modules(network).items() if leaf(layer)} | {path for path, _ in sites(network)}


def passed_above_zero(layer: nn.Module, wanted: Any) -> Any:
    """Return the part of `wanted` that an unsigned quantizer of the layer's output passes."""
    quantizer = quantizer_at(layer, OUTPUT)
    unsigned = isinstance(quantizer, Affine) and not int(quantizer.zero)
    return wanted.clamp(min=0) if unsigned and isinstance(wanted, Tensor) else wanted


@dataclass
class LayerCall:
    """A layer's input before its quantizer (None if not all positional), its output before and after its quantizer."""

    given: tuple[Any, ...] | None
    raw: Any = None
    made: Any = None


@dataclass
class RecordedRun:
    """The first call of each layer, in running order, and the network's output."""

    calls: dict[str, LayerCall]
    output: Any = None


def first_tensor_copy(value: Any) -> Any:
    """Return a copy of a tensor, or of the first of several: later layers may work in place."""
    value = value[0] if isinstance(value, (tuple, list)) and value else value
    return value.clone() if isinstance(value, Tensor) else value


def listened(network: nn.Module, inputs: Any, paths: Collection[str]) -> RecordedRun:
    """Run a network once and record inputs and outputs of the layers at `paths`."""
    begun: dict[str, LayerCall] = {}
    calls: dict[str, LayerCall] = {}

    def before(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            if path not in begun:
                begun[path] = LayerCall(None if named else tuple(first_tensor_copy(value) for value in given))

        return hook

    def unrounded(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if path not in calls:
                begun[path].raw = first_tensor_copy(output)

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if path not in calls:
                calls[path] = begun[path]
                calls[path].made = first_tensor_copy(output)

        return hook

    hooks: list[Any] = []
    for path, module in own_modules(network).items():
        if path in paths:
            hooks.append(module.register_forward_pre_hook(before(path), with_kwargs=True, prepend=True))
            if quantizer_at(module, OUTPUT) is not None and not leaf(module):
                hooks.append(module.register_forward_hook(unrounded(path), prepend=True))
            hooks.append(module.register_forward_hook(after(path)))
    try:
        with eval_mode(network):
            output = first_tensor_copy(first_floats(call(network, to_device(inputs, device_of(network)))))
    finally:
        for hook in hooks:
            hook.remove()
    return RecordedRun(calls, output)


def own_error(
    layer: nn.Module, given: tuple[Any, ...] | None, read: tuple[Any, ...] | None, wanted: Any
) -> float | None:
    """Return the layer's error on the original's activation, in its own input scales, against the original layer."""
    if not given or not read or len(given) != 1 or len(read) != 1:
        return None
    if not isinstance(given[0], Tensor) or not isinstance(read[0], Tensor) or read[0].shape != given[0].shape:
        return None
    try:
        with eval_mode(layer):
            made = layer(given[0] * scales(read[0], given[0]) if given[0].is_floating_point() else given[0])
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        return None  # A user's layer may depend on others having run before it: unknown.
    return difference_by_channel(first_tensor_copy(made), wanted)


def quantizers_error(layer: nn.Module, found: LayerCall, wanted: LayerCall) -> float | None:
    """Return the error that the layer's input or output quantizer adds, whichever is larger."""
    first, original_first = (call.given[0] if call.given else None for call in (found, wanted))
    errors = (
        quantizer_error(layer, INPUT, first, original_first),
        quantizer_error(layer, OUTPUT, found.raw, passed_above_zero(layer, wanted.made)),
    )
    return max((error for error in errors if error is not None), default=None)


def quantizer_error(layer: nn.Module, side: str, found: Any, wanted: Any) -> float | None:
    """Return the error that one quantizer adds to the original network's activation, rescaled to its own input."""
    quantizer = quantizer_at(layer, side)
    if quantizer is None or not isinstance(found, Tensor) or not isinstance(wanted, Tensor):
        return None
    if found.shape != wanted.shape or not wanted.is_floating_point():
        return None
    with torch.no_grad():
        return difference_by_channel(quantizer(wanted * scales(found, wanted)), wanted)


def scales(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the factor for each channel that brings `wanted` nearest to `found`, where scaling removes most of the
    error.

    That is where less than a quarter of the squared error remains, in the channel and in the whole activation (a few
    values may fit by chance), as after equalized layers. All other factors are 1.
    """
    axes = [axis for axis in range(found.dim()) if axis != (1 if found.dim() > 3 else found.dim() - 1)]
    size = wanted.square().sum(axes, keepdim=True)
    factors = (found * wanted).sum(axes, keepdim=True) / size.clamp(min=1e-30)
    factors = torch.where((size > 0) & (factors > 0), factors, torch.ones_like(factors))
    before = (found - wanted).square().sum(axes, keepdim=True)
    after = (found - factors * wanted).square().sum(axes, keepdim=True)
    taken = (after < LEFT * before) & (after.sum() < LEFT * before.sum())
    return torch.where(taken, factors, torch.ones_like(factors))


def difference_by_channel(found: Any, wanted: Any) -> float | None:
    """Return `relative_error` with each channel rescaled to the original network."""
    if (
        not isinstance(found, Tensor)
        or not isinstance(wanted, Tensor)
        or found.shape != wanted.shape
        or not wanted.dim()
        or not wanted.is_floating_point()
    ):
        return None
    return relative_error(found / scales(found, wanted), wanted)


def relative_error(found: Any, wanted: Any) -> float | None:
    """Return the relative root mean square difference; None for unequal shapes or non-float values."""
    if not isinstance(found, Tensor) or not isinstance(wanted, Tensor) or found.shape != wanted.shape:
        return None
    size = wanted.double().square().mean().sqrt()
    far = (found.double() - wanted.double()).square().mean().sqrt()
    if size > 0:
        return float(far / size) if bool(torch.isfinite(far / size)) else None
    return 0.0 if far == 0 else None


def form_name(layer: nn.Module) -> str:
    """Return a layer's forms and quantizers in short: "quantized, input 8 bits"."""
    forms = [type(form_of(layer, name)).__name__.lower() for name in attached_names(layer) if name == "weight"]
    activations = [(side, quantizer_at(layer, side)) for side in SIDES]
    return (
        ", ".join(
            forms + [f"{side} {quantizer.bits()} bits" for side, quantizer in activations if quantizer is not None]
        )
        or "original"
    )
