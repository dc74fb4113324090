"""Coverage: which layers of a file run in integers, and which low-bit weights the file stores packed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cortado.layers.factors import factored_network
from cortado.lowering.integers import Codes
from cortado.lowering.packed import Packed, narrow_layers, narrow_weights
from cortado.network.finalize import finalized_copy
from cortado.network.profile.profile import profile
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.attach import form_of
from cortado.runtimes.runtime import Runtime


@dataclass(frozen=True)
class Coverage:
    """The share of a network's multiply-adds that run in integers, and the layers that do not."""

    share: float
    float_layers: tuple[str, ...]


def coverage(runtime: Runtime, file: Path, network: nn.Module, example: Any) -> Coverage | None:
    """Return a file's coverage; None if no activation is quantized or the runtime does not report it."""
    found = runtime.integer_layers(file) if sites(network) else None
    if found is None:
        return None
    costs = {row.path: row.multiply_adds or 0.0 for row in profile(network, example).rows}
    whole = {path for path in costs if path in found or any(one.startswith(f"{path}.") for one in found if path)}
    total = sum(costs.values())
    rest = tuple(path for path, cost in costs.items() if cost and path not in whole)
    return Coverage(sum(costs[path] for path in whole) / total if total else 0.0, rest)


@dataclass(frozen=True)
class Packing:
    """`weights`: number of linear weights stored packed; `bits`: their widths; `dense`: layers not packed, with the reason."""

    weights: int
    bits: tuple[int, ...]
    dense: tuple[str, ...]


def packing(runtime: Runtime, file: Path, network: nn.Module, low: nn.Module) -> Packing | None:
    """Return what a file stores packed; None if no linear weight has at most 4 bits.  `low` is the lowered network."""
    # Layers that read quantized activations have 8-bit codes and belong to the coverage.
    eights = {path for path, layer in low.named_modules() if isinstance(form_of(layer, "weight"), Codes)}
    wanted = {
        path: form
        for path, form in narrow_layers(factored_network(finalized_copy(network))).items()
        if path not in eights
    }
    if not wanted:
        return None
    found, lowered_as = runtime.packed_layers(file), narrow_weights(low)
    if found is None:
        return Packing(0, (), tuple(f"{path}: {runtime.name()} stores no packed weights" for path in wanted))
    # A tied weight counts once.
    kept = {id(form): form.codes.numel() for path, form in wanted.items() if path in found}
    bits = sorted({found[path] for path in wanted if path in found})
    dense = tuple(f"{path}: {reason(lowered_as.get(path))}" for path in wanted if path not in found)
    return Packing(sum(kept.values()), tuple(bits), dense)


def reason(lowered_as: Packed | str | None) -> str:
    """Return why a weight is not packed in the file, from its entry in the lowered network."""
    if lowered_as is None:
        return "it was merged or rewritten"
    return lowered_as if isinstance(lowered_as, str) else "no matrix product in the file belongs to this layer alone"
