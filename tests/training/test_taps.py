"""Taps: outputs of modules by path and call, and what is said about paths that are none."""

import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.training.taps import TapHooks


class Twice(nn.Module):
    """One layer that runs twice, one that runs once, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.idle = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer2(self.layer1(self.layer1(inputs)))


def taken(*taps):
    network = Twice()
    hooks = TapHooks(network, taps, "the network")
    try:
        network(torch.ones(1, 3))
        return network, hooks.collect()
    finally:
        hooks.remove()
        assert not any(one._forward_hooks for one in network.modules())


def test_each_call_has_its_outputs():
    network, found = taken("layer1#1", "layer1#2", "layer2")
    assert torch.equal(found["layer1#1"], network.layer1(torch.ones(1, 3)))
    assert torch.equal(found["layer1#2"], network.layer1(found["layer1#1"]))
    assert torch.equal(found["layer2"], network.layer2(found["layer1#2"]))


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("layer3", "the network has no module 'layer3' to tap. Near names: layer"),
        ("", "the network has no module ''"),
        ("idle", "the tap 'idle' of the network did not run"),
        ("layer1", "the tap 'layer1' of the network ran 2 times. Write which call: layer1#2"),
        ("layer2#2", "the tap 'layer2#2' of the network ran 1 times, not 2"),
        ("layer2#x", "must be a path, or a path and the number of a call"),
    ],
)
def test_tap_that_is_none_is_refused_in_words(tap, message):
    with pytest.raises(BadValue, match=message):
        taken(tap)


def test_outputs_are_those_of_the_last_pass():
    network = Twice()
    hooks = TapHooks(network, ["layer2"], "the network")
    for value in (1.0, 2.0):
        outputs = network(torch.full((1, 3), value))
        assert torch.equal(hooks.collect()["layer2"], outputs)
    with pytest.raises(BadValue, match="did not run"):
        hooks.collect()


class Sum(nn.Module):
    """Two numbers that go into one module."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(3, 3, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.both(inputs, 2 * inputs) + self.both(inputs, 3 * inputs)


def test_arguments_are_tapped_by_number():
    network, inputs = Sum(), torch.ones(1, 3)
    hooks = TapHooks(network, ["both<2#1", "both<2#2", "both<1#1", "both#2"], "the network")
    network(inputs)
    found = hooks.collect()
    hooks.remove()
    assert torch.equal(found["both<2#1"], 2 * inputs) and torch.equal(found["both<2#2"], 3 * inputs)
    assert torch.equal(found["both<1#1"], inputs)
    assert torch.equal(found["both#2"], network.both(inputs, 3 * inputs))


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("both<3", "both of the network gets 2 arguments by place, not 3"),
        ("both<0", "gets 2 arguments by place, not 0"),
        ("both<x", "must be a path, or a path and the number of an argument such as both<1"),
        ("neither<1", "the network has no module 'neither<1' to tap"),
    ],
)
def test_argument_that_is_none_is_refused_in_words(tap, message):
    with pytest.raises(BadValue, match=message):
        hooks = TapHooks(network := Sum(), [tap], "the network")
        try:
            network(torch.ones(1, 3))
        finally:
            hooks.remove()
