"""Several: a network with several outputs, each of its own kind."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.outputs.outputs import Outputs, Rows, float_parts


@dataclass(frozen=True)
class Several(Outputs):
    """Several outputs, by name ("logits", "heads.1") or by their place among the float tensors; divergences are summed.

    >>> cortado.Task(..., outputs={"logits": Classes(), "boxes": Boxes()})
    """

    kinds: tuple[tuple[str | int, Outputs], ...]

    def rows(self, outputs: Any) -> Rows:
        parts = float_parts(outputs)
        return tuple(kind.rows(part_at(parts, key)) for key, kind in self.kinds)

    def fitted(self, rows: Rows) -> Outputs:
        pairs = zip(self.kinds, rows, strict=True)
        return replace(self, kinds=tuple((key, kind.fitted(part)) for (key, kind), part in pairs))

    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        triples = zip(self.kinds, wanted, found, strict=True)
        return torch.stack([kind.divergence(one, two, temperature) for (_, kind), one, two in triples]).sum(0)

    def distilled(self, wanted: Rows, found: Rows, temperature: float) -> Tensor:
        triples = zip(self.kinds, wanted, found, strict=True)
        return torch.stack([kind.distilled(one, two, temperature) for (_, kind), one, two in triples]).sum(0)

    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        pairs = zip(self.kinds, rows, strict=True)
        return torch.stack([kind.slope(part, temperature, generator) for (_, kind), part in pairs]).sum()

    def agreement(self, wanted: Rows, found: Rows) -> Tensor | None:
        """Return the least of the outputs' agreements."""
        each = [kind.agreement(one, two) for (_, kind), one, two in zip(self.kinds, wanted, found, strict=True)]
        known = [one for one in each if one is not None]
        return torch.stack(known).amin(0) if known else None

    def __str__(self) -> str:
        return " and ".join(f"{kind} ({key})" if isinstance(key, str) else str(kind) for key, kind in self.kinds)

    @property
    def softens(self) -> bool:
        return any(kind.softens for _, kind in self.kinds)


def several(kinds: Mapping[str, Outputs] | Iterable[Outputs]) -> Several:
    """Return the outputs of a network that returns these kinds, by name or in order."""
    items = kinds.items() if isinstance(kinds, Mapping) else enumerate(kinds)
    return Several(tuple(items))


def part_at(parts: dict[str, Tensor], key: str | int) -> Tensor:
    """Return one of the float tensors of outputs.  Raises BadTask if there is none of that name or place."""
    if isinstance(key, int) and key < len(parts):
        return list(parts.values())[key]
    if key in parts:
        return parts[str(key)]
    raise BadTask(
        f"task: outputs names the output {key!r}, but the network returns float tensors at: {', '.join(parts) or 'none'}. "
        "Name one of these, or leave it out."
    )
