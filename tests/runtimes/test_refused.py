"""The first operator that a runtime refuses is found, with its layer and its line."""

import pytest
import torch
from torch import nn

from cortado.lowering.graph import graph_of
from cortado.network.graph.axes.step import operator_name
from cortado.runtimes.refused import first_refused, part_until, place_text


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images):
        made = torch.tanh(self.conv(images))
        return made[:, :, ::2, ::2].contiguous()


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.linear = Inner(), nn.Linear(4, 2)

    def forward(self, images):
        return self.linear(self.block(images).mean((2, 3)))


def refuses_operator(name):
    def tries(part):
        if any(node.op == "call_function" and operator_name(node) == name for node in part.graph.nodes):
            raise RuntimeError("0x12")

    return tries


@pytest.mark.parametrize(
    ("name", "place"),
    [("slice", "slice in block, test_refused.py:19: return made[:, :, ::2, ::2].contiguous()"),
     ("conv2d", "conv2d in block.conv, test_refused.py:18: made = torch.tanh(self.conv(images))"),
     ("linear", "linear in linear, test_refused.py:28: return self.linear(self.block(images).mean((2, 3)))")],
)  # fmt: skip
def test_the_first_refused_operator_has_layer_and_line(name, place):
    network = Outer().eval()
    node = first_refused(graph_of(network, torch.randn(2, 3, 8, 8)), refuses_operator(name))
    assert place_text(node) == place


def test_nothing_is_blamed_if_no_part_is_refused():
    assert first_refused(graph_of(Outer().eval(), torch.randn(2, 3, 8, 8)), lambda part: None) is None


def test_a_part_returns_the_value_of_its_last_operator():
    network, images = Outer().eval(), torch.randn(2, 3, 8, 8)
    graph = graph_of(network, images)
    node = next(node for node in graph.graph.nodes if node.op == "call_function" and operator_name(node) == "tanh")
    with torch.no_grad():
        assert torch.equal(part_until(graph, node)(images), torch.tanh(network.block.conv(images)))
        assert graph(images).shape == (2, 2)
