"""Which layers can run a low-rank weight as its factors: linear and plain convolution layers with zero padding."""

from torch import nn

from cortado.parts.forms.attach import form_of, original_class
from cortado.parts.forms.low_rank import LowRank

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def low_rank_of(layer: nn.Module) -> LowRank | None:
    """The form of a layer's weight when the layer can run as its factors; None for all other layers.

    A subclass may do more than its parent, so that only the classes themselves count.
    """
    form = form_of(layer, "weight")
    if not isinstance(form, LowRank):
        return None
    if original_class(layer) is nn.Linear:
        return form if form.groups == 1 else None
    if original_class(layer) not in CONVOLUTIONS or layer.padding_mode != "zeros":
        return None
    return form if form.groups == layer.groups else None
