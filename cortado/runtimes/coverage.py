"""Coverage: which layers of a file its runtime computes in integers, and which weights of few bits the file keeps packed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cortado.lowering.factors import factored_network
from cortado.lowering.integers import Codes
from cortado.lowering.packed import Packed, narrow_layers, narrow_weights
from cortado.network.profile.profile import profile
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.attach import form_of
from cortado.runtimes.runtime import Runtime
from cortado.training.finalize import finalized_copy


@dataclass(frozen=True)
class Coverage:
    """The share of a network's multiply-adds that run in integers, and the layers that do not."""

    share: float
    float_layers: tuple[str, ...]


def coverage(runtime: Runtime, file: Path, network: nn.Module, example: Any) -> Coverage | None:
    """What the runtime makes of a file; None for a network whose activations are not rounded, and where it does not tell."""
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
    """`weights` of linear layers are kept in `bits` (each width that occurs); `dense` says which could not be, and why."""

    weights: int
    bits: tuple[int, ...]
    dense: tuple[str, ...]


def packing(runtime: Runtime, file: Path, network: nn.Module, low: nn.Module) -> Packing | None:
    """What a file keeps packed of a network and of its lowered copy; None when no linear weight has at most 4 bits."""
    # What reads rounded activations is held in codes of 8 bits, and told by its coverage.
    eights = {path for path, layer in low.named_modules() if isinstance(form_of(layer, "weight"), Codes)}
    wanted = {
        path: form
        for path, form in narrow_layers(factored_network(finalized_copy(network))).items()
        if path not in eights
    }
    if not wanted:
        return None
    found, said = runtime.packed_layers(file), narrow_weights(low)
    if found is None:
        return Packing(0, (), tuple(f"{path}: {runtime.name()} keeps no weights packed" for path in wanted))
    # A tied weight counts once.
    kept = {id(form): form.codes.numel() for path, form in wanted.items() if path in found}
    bits = sorted({found[path] for path in wanted if path in found})
    dense = tuple(f"{path}: {reason(said.get(path))}" for path in wanted if path not in found)
    return Packing(sum(kept.values()), tuple(bits), dense)


def reason(said: Packed | str | None) -> str:
    """Why a weight is not packed in the file, by what the lowered network says about it."""
    if said is None:
        return "it was merged or rewritten on the way"
    return said if isinstance(said, str) else "no product in the file is that of this layer alone"
