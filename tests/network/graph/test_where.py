"""Patterns choose weights."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from cortado.engine.compress import compress
from cortado.errors import BadValue, NothingChanged
from cortado.network.graph.where import choose, original_first
from cortado.network.view import View
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME

SIZES = {
    "conv1.weight": 4,
    "conv1.bias": 1,
    "norm.weight": 1,
    "block.conv2.weight": 4,
    "fc.weight": 2,
    "fc.bias": 1,
    "lstm.weight_ih_l0": 2,
}


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("*", ["conv1.weight", "block.conv2.weight", "fc.weight", "lstm.weight_ih_l0"]),
        ("conv1", ["conv1.weight"]),
        ("*conv*", ["conv1.weight", "block.conv2.weight"]),
        ("not fc", ["conv1.weight", "block.conv2.weight", "lstm.weight_ih_l0"]),
        ("*, not conv1, not fc", ["block.conv2.weight", "lstm.weight_ih_l0"]),
        ("*.bias", ["conv1.bias", "fc.bias"]),
        ("fc, fc.bias", ["fc.weight", "fc.bias"]),
        ("norm.weight", ["norm.weight"]),
        ("fc, conv1", ["conv1.weight", "fc.weight"]),
        ("block.*", ["block.conv2.weight"]),
    ],
)
def test_pattern_takes_what_it_says(where, names):
    assert choose(where, SIZES) == names


PARAMETRIZED = {
    "a.bias": 1,
    "a.parametrizations.weight.original0": 2,
    "a.parametrizations.weight.original1": 4,
    "a.parametrizations.weight.0.turn": 2,
    "b.parametrizations.weight.original": 2,
    "b.parametrizations.bias.original": 1,
    "c.weight": 2,
}
A, B = (
    ["a.parametrizations.weight.original0", "a.parametrizations.weight.original1"],
    ["b.parametrizations.weight.original"],
)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("a", A),
        ("[ab]", [*A, *B]),
        ("a.weight", A),
        ("not a, not b", ["a.parametrizations.weight.0.turn", "c.weight"]),
        ("*.bias", ["a.bias", "b.parametrizations.bias.original"]),
        ("*.original1", A[1:]),
        ("a.parametrizations.weight", A),
        ("*", [*A, "a.parametrizations.weight.0.turn", *B, "c.weight"]),
    ],
)
def test_parametrized_layer_answers_to_its_name(where, names):
    assert choose(where, PARAMETRIZED) == names


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_layer_is_compressed_by_its_name(norm):
    tiny = BY_NAME["mlp"]
    original = tiny.make()
    norm(original[0])
    small, _ = compress(original, tiny.task(), "prune/weights keep=0.75 where=0")
    (weight,) = (weight for weight in View(small, small, None).weights("0") if weight.shape == (16, 12))
    assert int(weight.dense().count_nonzero()) == 0.75 * 16 * 12
    assert torch.equal(small[2].weight, original[2].weight)
    with pytest.raises(NothingChanged, match="Remove the parametrizations first"):
        compress(original, tiny.task(), "factorize/svd where=0")


@pytest.mark.parametrize("where", ["fcc", "*, not fcc", "Conv1", "conv1.wieght"])
def test_pattern_that_takes_nothing_is_refused(where):
    with pytest.raises(BadValue, match="matches no weight of this network. Similar names: "):
        choose(where, SIZES)


@pytest.mark.parametrize("where", ["", ",", "fc conv1", "never fc", "not", "fc,,conv1"])
def test_pattern_that_is_none_is_refused(where):
    with pytest.raises(BadValue):
        choose(where, SIZES)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("method", ["prune/channels", "quantize/activations", "quantize/equalize", "factorize/svd"])
def test_method_on_parametrized_weights_names_the_way_out(method, wrap):
    torch.manual_seed(0)
    layers = [wrap(nn.Linear(6, 16)), nn.ReLU(), wrap(nn.Linear(16, 3))]
    inputs = torch.randn(32, 6)
    data = Data(inputs, torch.arange(32) % 3)
    with pytest.raises(
        NothingChanged, match=r"parametrizations first: torch\.nn\.utils\.parametrize\.remove_parametriz"
    ):
        compress(nn.Sequential(*layers).eval(), Task(data, data, data, trial=True), method)


def test_parametrized_weights_come_with_a_way_out():
    assert original_first(PARAMETRIZED).endswith("torch.nn.utils.parametrize.remove_parametrizations.")
    assert original_first(["c.weight", "a.bias"]) == ""
