"""Steps and maps that tests of objectives are given."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.training.objectives.objective import Objective, Observed, TrainingStep


def random_numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given_step(outputs=None, taught=None, *, taps=None, taught_taps=None, others=(), **more) -> TrainingStep:
    """A step of outputs and taps of the network and of the teacher; `others`: outputs of further teachers."""
    fields = {
        "inputs": None, "targets": None, "progress": 0.5, "modules": {}, "again": None, "loss": functional.cross_entropy,
    } | more  # fmt: skip
    teachers = (Observed(taught, taught_taps or {}), *(Observed(one) for one in others))
    return TrainingStep(outputs=outputs, taps=taps or {}, teachers=teachers, **fields)


def with_modules(objective: Objective, step: TrainingStep) -> TrainingStep:
    """The step with the modules that the objective makes, in float64."""
    torch.manual_seed(0)
    made = {name: one.double() for name, one in objective.modules(step).items()}
    return TrainingStep(**(vars(step) | {"modules": made}))


def total(objective: Objective, step: TrainingStep) -> Tensor:
    """The sum of the objective's terms."""
    return torch.stack(list(objective.terms(step).values())).sum()


class Slope(nn.Module):
    """A critic whose gradient has this norm everywhere."""

    def __init__(self, slope: float, numbers: int) -> None:
        super().__init__()
        self.slope, self.numbers = slope, numbers

    def forward(self, values: Tensor) -> Tensor:
        return values.flatten(1).sum(1) * self.slope / self.numbers**0.5
