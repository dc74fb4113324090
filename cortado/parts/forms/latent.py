"""Latent: a float copy of a weight that is rounded again at every training step.  Each kind of rounding is one form."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cortado.parts.forms.form import Form
from cortado.parts.forms.lattice import Lattice
from cortado.parts.forms.masked_latent import MaskedLatent
from cortado.parts.part import FLOATS


class Latent(Form):
    """Float values that the network uses rounded; the optimizer updates the floats.

    A subclass defines `rounded`, with its gradient, and `attached`, a form with the rounded values. Its learned
    numbers are Parameters. The gradient passes straight through the rounding (Bengio et al., 2013; Courbariaux et
    al., 2015) unless the paper differs. A cut form keeps its values but is no longer latent, unless the subclass can
    continue its rounding.
    """

    arrays = {"values": FLOATS}

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.shape = values.shape
        self.values = nn.Parameter(values.detach().clone())

    @abstractmethod
    def rounded(self) -> Tensor:
        """Return the weight as the network uses it, with the gradient for training."""

    @abstractmethod
    def attached(self) -> Form:
        """Return a form with the rounded values, bit for bit, that no longer rounds."""

    def finalize(self) -> Form:
        """Return `attached` with bfloat16 floats, which saves two bytes per scale at no cost in accuracy."""
        made = self.attached()
        with torch.no_grad():
            for scale in made.parameters():
                scale.copy_(scale.bfloat16())
        return made

    def dense(self) -> Tensor:
        return self.rounded()

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        """Return `fn` applied to the rounded values; a latent result continues from the floats."""
        made = fn(self.dense().detach())
        return fn(self.values.detach()) if isinstance(made, Latent) else made

    def narrow(self, axis: int, keep: Tensor) -> Form:
        return self.attached().narrow(axis, keep)

    def bits(self) -> float:
        return self.attached().bits()

    def select(self, mask: Tensor) -> Form:
        return MaskedLatent(mask, self)

    def lattice(self) -> Lattice | None:
        return self.attached().lattice()


def straight(rounded: Tensor, values: Tensor) -> Tensor:
    """Return `rounded`; the gradient reaches `values` as if they had not been rounded."""
    return rounded.detach() + (values - values.detach())


def signs(values: Tensor) -> Tensor:
    """Return -1 below zero and 1 from zero on."""
    return torch.where(values < 0, -1.0, 1.0).to(values.dtype)
