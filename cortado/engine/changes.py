"""Changes: whether a stage changed anything, checking the weights that editing operations touched first."""

from dataclasses import dataclass

from torch import nn

from cortado.network.weight import Weight, parameter_places
from cortado.parts.activations.quantizer import Described, rounding_facts, sites
from cortado.parts.forms.attach import form_of
from cortado.parts.forms.same import rounds_alike, same_bits, same_state


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
        return not same_state(self.before, self.after)


def other_weight(before: Weight, after: Weight, values_only: bool) -> bool:
    """Return whether a weight's values or, unless `values_only`, its latent rounding changed."""
    one, other = form_of(*before.places[0]), form_of(*after.places[0])
    return not same_bits(before.dense(), after.dense()) or not values_only and not rounds_alike(one, other)


def activation_rounding(network: nn.Module) -> dict[tuple[str, str], Described]:
    """Return the description of each activation quantizer, by place."""
    return {place: rounding_facts(one) for place, one in sites(network).items()}
