"""The known layer classes, and the lookup of a layer's kind."""

from typing import TypeGuard

from torch import nn

from cortado.layers import activation, attention, conv, embedding, linear, norm, recurrent
from cortado.layers.kind import Kind
from cortado.layers.roles import MATMUL, NORM
from cortado.parts.forms.attach import original_class

FAMILIES = (linear, conv, norm, embedding, recurrent, attention, activation)
KINDS = {kind.layer_class: kind for family in FAMILIES for kind in family.KINDS}


def kind_of(layer: nn.Module) -> Kind | None:
    """Return the kind of the layer's class or of its nearest base class that has one; None for any other layer.

    A user's class brings its own as `__cortado_kind__`. Layers with forms attached and subclasses have the kind of the
    class they inherit from.
    """
    found = (vars(kind).get("__cortado_kind__", KINDS.get(kind)) for kind in type(layer).__mro__)
    return next((kind for kind in found if kind is not None), None)


def role_of(layer: nn.Module) -> str | None:
    """Return what a layer of a known kind does to an activation, if it runs its class's own forward; None for others."""
    kind = kind_of(layer)
    return kind.role if kind is not None and type(layer).forward is kind.layer_class.forward else None


def is_matmul(layer: nn.Module) -> bool:
    """Return whether a layer is a linear layer or a convolution, transposed or not."""
    kind = kind_of(layer)
    return kind is not None and kind.role == MATMUL


def is_transposed(layer: nn.Module) -> bool:
    """Return whether a layer is a transposed convolution."""
    kind = kind_of(layer)
    return kind is not None and kind.transposed


def is_matrix(layer: nn.Module) -> bool:
    """Return whether a layer multiplies patches of its input by `weight.flatten(1)`: no transposed convolution does."""
    kind = kind_of(layer)
    return kind is not None and kind.patches is not None


def is_known_matrix(layer: nn.Module) -> bool:
    """Return whether `is_matrix` holds and the layer is exactly of its kind's class: a subclass may compute more."""
    kind = kind_of(layer)
    return kind is not None and kind.patches is not None and kind.layer_class is original_class(layer)


def is_lookup(layer: nn.Module) -> TypeGuard[nn.Embedding]:
    """Return whether a layer returns rows of its weight as they are: an embedding, whose rows no bag adds up."""
    return original_class(layer) is nn.Embedding and layer.max_norm is None  # type: ignore[union-attr]


def is_convolution(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a layer is a convolution, not a transposed one."""
    kind = kind_of(layer)
    return kind is not None and kind.role == MATMUL and kind.spatial > 0 and not kind.transposed


def is_channel_norm(layer: nn.Module) -> bool:
    """Return whether a layer scales and shifts each channel by fixed numbers in eval mode: a batch norm, folded or not."""
    kind = kind_of(layer)
    return kind is not None and kind.role == NORM
