"""Heads on flattened maps are found in the graph, and what turns axes before them is not taken for one."""

import torch
from torch import Tensor, nn

from cortado.network.graph.flattened import FlatHead, head_at
from cortado.network.graph.trace import trace


class Net(nn.Module):
    """A convolution and two linear layers; `way` says how maps are flattened."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.conv = way, nn.Conv2d(1, 4, 3)
        self.one, self.act, self.two = nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        flat = maps.permute(0, 2, 3, 1).flatten(1) if self.way == "turned" else maps.reshape(len(maps), -1)
        inner = torch.relu(self.one(flat)) if self.way == "inline" else self.act(self.one(flat))
        return self.two(inner)


def head(way: str) -> FlatHead | None:
    network = Net(way).eval()
    return head_at(trace(network, torch.zeros(2, 1, 4, 4)), network.one)


def test_channels_places_and_what_is_behind_are_found():
    assert head("modules") == FlatHead("one", 4, 4, ("act", "two"))
    assert head("inline") == FlatHead("one", 4, 4, None)


def test_turned_maps_and_layers_behind_others_are_no_heads():
    assert head("turned") is None
    network = Net("modules").eval()
    assert head_at(trace(network, torch.zeros(2, 1, 4, 4)), network.two) is None
