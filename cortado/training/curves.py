"""Curves: each term of the loss over the epochs of a training."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cortado.errors import Diverged
from cortado.training.distributed import Processes

TOTAL = "loss"
"""The name of the sum of all terms."""


@dataclass
class Curves:
    """The mean of each term in every epoch, `loss` of the last one (NaN without epochs), and the values of this epoch."""

    loss: float = math.nan
    means: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, values: dict[str, Tensor]) -> None:
        """Add the terms of a step."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def end_epoch(self, group: Processes, epoch: int, label: str, hint: str) -> None:
        """Take the means of an epoch over steps and processes.  Raises Diverged, with a hint, if one is not finite."""
        means = {name: float(group.mean(torch.stack(found).mean())) for name, found in self.values.items()}
        values, self.values = self.values, {}
        if not all(math.isfinite(value) for value in means.values()):
            terms = f" (its terms {', '.join(first_wrong(values, means))})" if len(means) > 2 else ""
            raise Diverged(f"{label}: the loss of epoch {epoch + 1} is {means[TOTAL]}{terms}, {hint}")
        self.loss = means.pop(TOTAL)
        for name, mean in means.items():
            self.means.setdefault(name, []).append(mean)


def first_wrong(values: dict[str, list[Tensor]], means: dict[str, float]) -> list[str]:
    """Return the terms that were the first not to be finite."""
    first = {
        name: int(torch.isfinite(torch.stack(found)).logical_not().int().argmax())
        for name, found in values.items()
        if name != TOTAL and not math.isfinite(means[name])
    }
    return [name for name, at in first.items() if at == min(first.values())]
