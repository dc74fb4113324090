"""The known layer classes, and the lookup of a layer's kind."""

from torch import nn

from cortado.layers import attention, conv, embedding, linear, norm, recurrent
from cortado.layers.kind import Kind

KINDS = {
    kind.layer_class: kind for family in (linear, conv, norm, embedding, recurrent, attention) for kind in family.KINDS
}


def kind_of(layer: nn.Module) -> Kind | None:
    """Return the kind of the layer's class or of its nearest known base class; None for any other layer.

    Layers with forms attached and user-defined subclasses have the kind of the class they inherit from.
    """
    return next((KINDS[kind] for kind in type(layer).__mro__ if kind in KINDS), None)
