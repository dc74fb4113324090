"""Coverage: which layers of a file its runtime really computes in integers, and what share of the multiply-adds they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cortado.network.profile import profile
from cortado.runtimes.runtime import Runtime
from cortado.signals.signal import sites


@dataclass(frozen=True)
class Coverage:
    """The share of a network's multiply-adds that run in integers, and the layers that do not."""

    share: float
    float_layers: tuple[str, ...]


def coverage(runtime: Runtime, file: Path, network: nn.Module, example: Any) -> Coverage | None:
    """What the runtime makes of a file; None for a network whose signals are not rounded, and where it does not tell."""
    found = runtime.integer_layers(file) if sites(network) else None
    if found is None:
        return None
    costs = {row.path: row.multiply_adds or 0.0 for row in profile(network, example).rows}
    whole = {path for path in costs if path in found or any(one.startswith(f"{path}.") for one in found if path)}
    total = sum(costs.values())
    rest = tuple(path for path, cost in costs.items() if cost and path not in whole)
    return Coverage(sum(costs[path] for path in whole) / total if total else 0.0, rest)
