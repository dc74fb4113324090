"""Recurrent layers: each matrix stacks the gates along the output axis."""

from torch import nn

from cortado.layers.kind import Axes, Kind

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


KINDS = (
    Kind("recurrent", nn.LSTM, ("input_size", "hidden_size", "proj_size"), SETTINGS, recurrent_axes),
    Kind("recurrent", nn.GRU, ("input_size", "hidden_size"), SETTINGS, recurrent_axes),
    Kind("recurrent", nn.RNN, ("input_size", "hidden_size"), (*SETTINGS, "nonlinearity"), recurrent_axes),
)
