"""Changes: whether a stage changed anything, checking the weights that editing operations touched first."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cortado.network.weight import Weight, parameter_places
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.attach import form_of
from cortado.parts.forms.latent import Latent


@dataclass(frozen=True)
class Changes:
    """A network before and after a stage; `touched`: paths of the weights that editing operations wrote.

    Training and in-place edits are not recorded there, so untouched weights are compared too.
    """

    before: nn.Module
    after: nn.Module
    touched: set[str]

    def any(self, values_only: bool = False) -> bool:
        """Return whether a value, a rounding or, unless `values_only`, a form or buffer changed."""
        return (
            self.weights(0)
            or activation_rounding(self.before) != activation_rounding(self.after)
            or not values_only
            and self.forms()
        )

    def matrices(self) -> bool:
        """Return whether a weight of two or more axes, or an activation quantizer, changed."""
        return self.weights(2) or activation_rounding(self.before) != activation_rounding(self.after)

    def weights(self, axes: int) -> bool:
        """Return whether a weight of `axes` or more axes changed; touched weights are compared first."""
        before, after = (
            {one.path: one for one in parameter_places(network) if len(one.shape) >= axes}
            for network in (self.before, self.after)
        )
        if {path: one.shape for path, one in before.items()} != {path: one.shape for path, one in after.items()}:
            return True
        order = sorted(after, key=lambda path: path not in self.touched)
        return any(other_weight(before[path], after[path], bool(axes)) for path in order)

    def forms(self) -> bool:
        """Return whether any tensor of the state changed."""
        before, after = self.before.state_dict(), self.after.state_dict()
        return list(before) != list(after) or any(
            isinstance(value, Tensor) and not same_bits(value, after[name]) for name, value in before.items()
        )


def other_weight(before: Weight, after: Weight, values_only: bool) -> bool:
    """Return whether a weight's values or, unless `values_only`, its latent rounding changed."""
    return not same_bits(before.dense(), after.dense()) or not values_only and latent(before) != latent(after)


def latent(weight: Weight) -> list[tuple[str, dict[str, int]]]:
    """Return how a weight is rounded in training: a change there counts even if its values stay."""
    form = form_of(*weight.places[0])
    parts = () if form is None else form.modules()
    return [(type(part).__qualname__, part.spec()) for part in parts if isinstance(part, Latent)]


def activation_rounding(network: nn.Module) -> dict[tuple[str, str], tuple[str, dict[str, int], list[list[float]]]]:
    """Return the class, spec and numbers of each activation quantizer, by place."""
    return {
        place: (type(one).__qualname__, one.spec(), [part.flatten().tolist() for part in one.parts().values()])
        for place, one in sites(network).items()
    }


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are bitwise equal, with the same dtype and shape."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(bits_of(one), bits_of(other.to(one.device)))


def bits_of(value: Tensor) -> Tensor:
    """Return the bytes of a tensor."""
    return value.detach().contiguous().view(-1).view(torch.uint8) if value.numel() else value.detach()
