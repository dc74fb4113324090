"""Widths: set a layer's attributes (in_channels, num_features ...) from the shapes of its tensors."""

from torch import nn

from cortado.layers.kinds import kind_of


def match_widths(layer: nn.Module) -> None:
    """Set the attributes of a layer of a known kind from the shapes of its tensors; other modules are left alone.

    The shapes do not always determine the number of groups of a convolution or group norm: it stays if it still
    divides the channels; otherwise whole groups were cut. Safe to call again, and after a cut of only some of the
    tensors.
    """
    kind = kind_of(layer)
    if kind is not None:
        kind.follow(layer)
