"""Recurrent layers: each matrix stacks the gates along the output axis."""

from torch import nn

from cortado.layers.kind import Axes, Kind, shape_of
from cortado.parts.forms.attach import attached_names

SETTINGS = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def recurrent_axes(layer: nn.RNNBase) -> dict[str, Axes]:
    """Return the axes, for each layer and direction, of weight_ih (gates * hidden, in), weight_hh (gates * hidden,
    hidden) and the biases (gates * hidden); of weight_hr (projected, hidden) where an LSTM projects its state.
    """
    gates = GATES[layer.mode]
    axes: dict[str, Axes] = {}
    for suffix in (f"l{level}{way}" for level in range(layer.num_layers) for way in ("", "_reverse")):
        axes |= {f"weight_{part}_{suffix}": Axes(output=0, inputs=(1,), blocks=gates) for part in ("ih", "hh")}
        axes |= {f"bias_{part}_{suffix}": Axes(output=0, blocks=gates) for part in ("ih", "hh")}
        axes[f"weight_hr_{suffix}"] = Axes(output=0, inputs=(1,))
    return axes


def follow_recurrent(layer: nn.RNNBase) -> None:
    """Read weight_ih (gates * hidden, in) and weight_hr (projected, hidden) of the first layer; update the list."""
    given, projected = shape_of(layer, "weight_ih_l0"), shape_of(layer, "weight_hr_l0")
    if given is not None and layer.mode in GATES:
        layer.hidden_size, layer.input_size = given[0] // GATES[layer.mode], given[1]
    if projected is not None:
        layer.proj_size = projected[0]
    if not attached_names(layer):
        layer.__dict__["_flat_weights"] = [layer._parameters.get(name) for name in layer._flat_weights_names]


HIDDEN = ("input_size", "hidden_size")
KINDS = (
    Kind("recurrent", nn.LSTM, (*HIDDEN, "proj_size"), SETTINGS, recurrent_axes, follow_recurrent),
    Kind("recurrent", nn.GRU, HIDDEN, SETTINGS, recurrent_axes, follow_recurrent),
    Kind("recurrent", nn.RNN, HIDDEN, (*SETTINGS, "nonlinearity"), recurrent_axes, follow_recurrent),
)
