"""quantize/weights: what cannot be rounded is said, what needs no rounding stays."""

import pytest
import torch

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, BadValue
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.parts.forms.quantized import Quantized
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(BadValue, match=f"quantize/weights: bits must lie in 1..8, got {bits}"):
        QuantizeWeights(bits=bits)


@pytest.mark.parametrize("bits", ["8", 2.5, True])
def test_bits_that_are_no_whole_number_are_refused(bits):
    with pytest.raises(BadValue, match="quantize/weights: bits must be a whole number"):
        QuantizeWeights(bits=bits)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad):
    network = NET.make()
    network.stem.weight.data[0, 0, 0, 0] = bad
    with pytest.raises(BadNetwork, match="stem.weight holds NaN or infinite values"):
        compress(network, NET.task(), "quantize/weights")


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("per", ["tensor", "channel", "group"])
def test_weights_that_are_all_the_same_stay(value, per):
    network, original = NET.make(), NET.make()
    network.stem.weight.data.fill_(value)
    view = View(network, original, NET.example)
    QuantizeWeights(per=per, where="stem.weight").apply(view, NET.task())
    (weight,) = view.weights("stem.weight")
    assert isinstance(weight.form, Quantized)
    assert torch.allclose(weight.dense(), torch.tensor(value), rtol=1e-6)
