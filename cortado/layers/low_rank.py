"""Which layers can run a low-rank weight as two factors: linear and convolution layers with zero padding."""

from torch import nn

from cortado.layers.conv import CONVOLUTIONS
from cortado.parts.activations.quantizer import INPUT, quantizer_at
from cortado.parts.forms.attach import form_of, original_class
from cortado.parts.forms.form import Factors


def low_rank_of(layer: nn.Module) -> Factors | None:
    """Return the factors of a layer's weight if the layer can run as its factors, else None.

    Subclasses do not count: their forward may do more than their parent's. Copies of filters that read rounded inputs are
    computed one by one, in integers.
    """
    form = form_of(layer, "weight")
    factors = None if form is None else form.factors()
    if factors is None or (factors.fixed and quantizer_at(layer, INPUT) is not None):
        return None
    if original_class(layer) is nn.Linear:
        return factors if factors.groups == 1 else None
    if original_class(layer) not in CONVOLUTIONS or layer.padding_mode != "zeros":
        return None
    return factors if factors.groups == layer.groups else None
