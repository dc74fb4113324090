"""Classes: outputs are logits of classes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.task.outputs.outputs import Outputs, Rows, as_rows, first_floats_of
from cortado.task.outputs.softmax import kl, kl_slope, same_largest


@dataclass(frozen=True)
class Classes(Outputs):
    """Logits of classes: (N, classes), (N, places, classes), or maps (N, classes, H, W ...).

    >>> nats = cortado.Classes().divergence(torch.rand(2, 1, 3), torch.rand(2, 1, 3))

    They stand for their softmax, and the divergence is KL. Of several outputs the first float tensor counts. `axis` is the
    axis of the classes where it is another.
    """

    axis: int | None = None

    def rows(self, outputs: Any) -> Rows:
        return as_rows(first_floats_of(outputs), self.axis)

    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        return kl(wanted, found, temperature)

    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        return kl_slope(rows, temperature, generator)

    def agreement(self, wanted: Rows, found: Rows) -> Tensor | None:
        return same_largest(wanted, found)

    @property
    def softens(self) -> bool:
        return True
