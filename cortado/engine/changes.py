"""Changes: whether a stage changed anything, found by looking first at what the editing operations touched."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cortado.network.view import Weight, parameter_places
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.attach import form_of
from cortado.parts.forms.latent import Latent


@dataclass(frozen=True)
class Changes:
    """A network before a stage and after it; `touched` are the paths of the weights that editing operations wrote.

    What trains, and what edits floats in place, touches without saying so: nothing is taken for unchanged unseen.
    """

    before: nn.Module
    after: nn.Module
    touched: set[str]

    def any(self, values_only: bool = False) -> bool:
        """Return whether a value, a way to round or, unless `values_only`, a form or a buffer is another."""
        return self.weights(0) or rounding(self.before) != rounding(self.after) or not values_only and self.forms()

    def matrices(self) -> bool:
        """Return whether a weight of two axes or more, or what rounds activations, is another."""
        return self.weights(2) or rounding(self.before) != rounding(self.after)

    def weights(self, axes: int) -> bool:
        """Return whether a weight of so many axes or more changed.  Those that were touched are compared first."""
        before, after = (
            {one.path: one for one in parameter_places(network) if len(one.shape) >= axes}
            for network in (self.before, self.after)
        )
        if {path: one.shape for path, one in before.items()} != {path: one.shape for path, one in after.items()}:
            return True
        order = sorted(after, key=lambda path: path not in self.touched)
        return any(other_weight(before[path], after[path], bool(axes)) for path in order)

    def forms(self) -> bool:
        """Return whether some tensor of the state, in whatever form, is another."""
        before, after = self.before.state_dict(), self.after.state_dict()
        return list(before) != list(after) or any(
            isinstance(value, Tensor) and not same_bits(value, after[name]) for name, value in before.items()
        )


def other_weight(before: Weight, after: Weight, values_only: bool) -> bool:
    """Return whether a weight has another value or, in training, is rounded another way."""
    return not same_bits(before.dense(), after.dense()) or not values_only and latent(before) != latent(after)


def latent(weight: Weight) -> list[tuple[str, dict[str, int]]]:
    """Return how a weight is rounded while it trains: another way is a change, though the values may be those that were."""
    form = form_of(*weight.places[0])
    parts = () if form is None else form.modules()
    return [(type(part).__qualname__, part.spec()) for part in parts if isinstance(part, Latent)]


def rounding(network: nn.Module) -> dict[tuple[str, str], tuple[str, dict[str, int], list[list[float]]]]:
    """Return what rounds the activations of a network, by place: its class, facts and numbers."""
    return {
        place: (type(one).__qualname__, one.spec(), [part.flatten().tolist() for part in one.parts().values()])
        for place, one in sites(network).items()
    }


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal to the last bit, type and shape included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(bits_of(one), bits_of(other.to(one.device)))


def bits_of(value: Tensor) -> Tensor:
    """Return the bytes of a tensor."""
    return value.detach().contiguous().view(-1).view(torch.uint8) if value.numel() else value.detach()
