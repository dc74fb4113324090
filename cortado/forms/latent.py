"""Latent: a float copy of a weight that is rounded anew at every step, while training."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.forms.form import FLOATS, Arrays, Form
from cortado.forms.quantized import Quantized


class Rounding(nn.Module):
    """How a latent weight is seen: `forward` gives the value that the network uses, with a gradient that passes.

    Its learned parts are Parameters. `settle` gives the form that holds the rounded values for good.
    """

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """The weight as used, same shape as `values`."""

    @abstractmethod
    def settle(self, values: Tensor) -> Form:
        """The form of the rounded values."""


class Latent(Form):
    """Float values seen through a rounding; the optimizer moves the floats, the network sees the rounded ones.

    The gradient passes straight through the rounding (Bengio et al., 2013; Courbariaux et al., 2015).
    """

    arrays = {"values": FLOATS, "step": FLOATS}
    rounding: Rounding

    def __init__(self, values: Tensor, rounding: Rounding) -> None:
        super().__init__()
        self.shape = values.shape
        self.values = nn.Parameter(values.detach().clone())
        self.rounding = rounding

    def dense(self) -> Tensor:
        return self.rounding(self.values)

    def recode(self, fn: Callable[[Tensor], Form]) -> Form:
        return fn(self.dense().detach())

    def narrow(self, axis: int, keep: Tensor) -> Form:
        return Latent(self.values.detach().index_select(axis, keep), self.rounding)

    def bits(self) -> float:
        return self.settle().bits()

    def spec(self) -> dict[str, int]:
        return {}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        return {"step": 1}

    def parts(self) -> Arrays:
        if not isinstance(self.rounding, LearnedStep):
            raise BadValue(
                f"forms/latent: a weight seen through {type(self.rounding).__name__} is still in training. "
                "Settle it before it is saved: form.settle()."
            )
        return {"values": self.values.detach(), "step": self.rounding.step.detach().reshape(1)}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Latent":
        return cls(parts["values"].reshape(shape), LearnedStep(float(parts["step"][0])))

    def settle(self) -> Form:
        return self.rounding.settle(self.values.detach())


class LearnedStep(Rounding):
    """The nearest multiple of one learned step; the step's gradient is that of Esser et al., 2020 (LSQ)."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(float(step)))

    @property
    def size(self) -> Tensor:
        """The step, kept above zero."""
        return self.step.abs().clamp(min=1e-6)

    def forward(self, values: Tensor) -> Tensor:
        level = values / self.size
        return (level + (level.round() - level).detach()) * self.size

    def settle(self, values: Tensor) -> Form:
        # A step of 16 bits costs the file two bytes less and the network nothing.
        step = self.size.detach().bfloat16().to(values.dtype)
        return Quantized((values / self.size.detach()).round(), step.reshape(1))
