"""Latent: a float copy of a weight that is rounded again at every step, while training.  What rounds is a form each."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cortado.parts.forms.form import FLOATS, Form


class Latent(Form):
    """Float values that the network sees rounded; the optimizer moves the floats.

    A subclass says how: `rounded` with its gradient, and `attached`, a form that holds the rounded values. Its learned
    numbers are Parameters. The gradient passes straight through the rounding (Bengio et al., 2013; Courbariaux et al.,
    2015) unless a paper has it otherwise. What is cut keeps its values, but is no longer latent, unless the subclass can
    tell how its rounding goes on.
    """

    arrays = {"values": FLOATS}

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.shape = values.shape
        self.values = nn.Parameter(values.detach().clone())

    @abstractmethod
    def rounded(self) -> Tensor:
        """The weight as the network uses it, with the gradient that training wants."""

    @abstractmethod
    def attached(self) -> Form:
        """The rounded values in a form that rounds no more, to the last bit."""

    def finalize(self) -> Form:
        """The same with floats of 16 bits (bfloat16): scales cost the file two bytes less, and the network nothing."""
        made = self.attached()
        with torch.no_grad():
            for scale in made.parameters():
                scale.copy_(scale.bfloat16())
        return made

    def dense(self) -> Tensor:
        return self.rounded()

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        """What `fn` makes of the rounded values; where it makes a latent form again, that goes on from the floats."""
        made = fn(self.dense().detach())
        return fn(self.values.detach()) if isinstance(made, Latent) else made

    def narrow(self, axis: int, keep: Tensor) -> Form:
        return self.attached().narrow(axis, keep)

    def bits(self) -> float:
        return self.attached().bits()


def straight(rounded: Tensor, values: Tensor) -> Tensor:
    """`rounded` going forward; going back, the gradient reaches `values` as if they had not been rounded."""
    return rounded.detach() + (values - values.detach())


def signs(values: Tensor) -> Tensor:
    """-1 below zero, 1 from zero on."""
    return torch.where(values < 0, -1.0, 1.0).to(values.dtype)
