"""Patterns choose weights."""

import pytest

from cortado.errors import BadValue
from cortado.network.where import choose

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


@pytest.mark.parametrize("where", ["fcc", "*, not fcc", "Conv1", "conv1.wieght"])
def test_pattern_that_takes_nothing_is_refused(where):
    with pytest.raises(BadValue, match="matches no weight of this network. Near it: "):
        choose(where, SIZES)


@pytest.mark.parametrize("where", ["", ",", "fc conv1", "never fc", "not", "fc,,conv1"])
def test_pattern_that_is_none_is_refused(where):
    with pytest.raises(BadValue):
        choose(where, SIZES)
