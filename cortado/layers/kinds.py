"""The layer classes that are known, and which of them a layer is."""

from torch import nn

from cortado.layers import attention, conv, embedding, linear, norm, recurrent
from cortado.layers.kind import Kind

KINDS = {
    kind.layer_class: kind for family in (linear, conv, norm, embedding, recurrent, attention) for kind in family.KINDS
}


def kind_of(layer: nn.Module) -> Kind | None:
    """What is known of the layer's class or the nearest class it inherits from; None for any other layer.

    A layer whose weights are held in forms, and a subclass that somebody wrote, are of the kind of what they inherit.
    """
    return next((KINDS[kind] for kind in type(layer).__mro__ if kind in KINDS), None)
