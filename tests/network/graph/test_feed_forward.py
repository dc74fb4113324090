"""Feed-forward layers are found however a class holds them, and nothing else is."""

import pytest
import torch
from torch import Tensor, nn

from cortado.network.graph.feed_forward import FeedForward, feed_forwards, pairs_of_layers
from cortado.network.view import View


class Held(nn.Module):
    """Linear layers under names of their own, with a function and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.drop = nn.Linear(6, 8), nn.Linear(8, 6), nn.Dropout(0.5)

    def forward(self, values: Tensor) -> Tensor:
        return self.drop(self.down(nn.functional.silu(self.up(values))))


class Added(Held):
    """Adds what came in."""

    def forward(self, values: Tensor) -> Tensor:
        return values + super().forward(values)


class Read(Held):
    """Reads the inside a second time."""

    def forward(self, values: Tensor) -> Tensor:
        inside = nn.functional.silu(self.up(values))
        return self.down(inside) + inside.sum(-1, keepdim=True)


class Wrapped(nn.Module):
    """Holds a feed-forward layer and adds what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.feed = Held()

    def forward(self, values: Tensor) -> Tensor:
        return values + self.feed(values)


def found_in(module):
    network = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), module).eval()
    view = View(network, network, torch.randn(2, 3, 6))
    return view, feed_forwards(view.graph, view.flow)


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (Held(), FeedForward("2", "up", "down", "silu")),
        (Wrapped(), FeedForward("2.feed", "up", "down", "silu")),
        (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)), FeedForward("2", "0", "2", "gelu")),
        (nn.Sequential(Held(), nn.LayerNorm(6)), FeedForward("2.0", "up", "down", "silu")),
    ],
)
def test_layers_are_found_with_their_activation(module, wanted):
    assert found_in(module)[1] == [wanted]


@pytest.mark.parametrize(
    "module",
    [Added(), Read(), nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 6), nn.ReLU())],
)
def test_what_does_more_is_none(module):
    view, found = found_in(module)
    assert not found
    assert [one.first for one in pairs_of_layers(view.graph, view.flow)] == (["2.up"] if type(module) is Added else [])
