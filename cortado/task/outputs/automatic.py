"""Automatic: the kind of outputs where the task does not say."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.outputs.outputs import Outputs, Rows, as_rows, float_parts
from cortado.task.outputs.several import Several


@dataclass(frozen=True)
class Automatic(Outputs):
    """One float tensor: logits of classes, or numbers where each is a single one. Several: each of them as numbers."""

    def rows(self, outputs: Any) -> Rows:
        found = tuple(as_rows(part) for part in float_parts(outputs).values())
        return found if len(found) > 1 else found[0] if found else torch.zeros(0, 1, 1)

    def fitted(self, rows: Rows) -> Outputs:
        if isinstance(rows, Tensor):
            return Classes() if rows.shape[-1] > 1 else Numbers().fitted(rows)
        return Several(tuple((place, Numbers().fitted(part)) for place, part in enumerate(rows)))

    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        return self.fitted(wanted).divergence(wanted, found, temperature)

    def distilled(self, wanted: Rows, found: Rows, temperature: float) -> Tensor:
        return self.fitted(wanted).distilled(wanted, found, temperature)

    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        return self.fitted(rows).slope(rows, temperature, generator)

    def agreement(self, wanted: Rows, found: Rows) -> Tensor | None:
        return self.fitted(wanted).agreement(wanted, found)

    @property
    def softens(self) -> bool:
        return True
