"""Vertical and horizontal fusion: equal outputs for any batch, and only true siblings are merged."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from bench.vertical import FusedConvolution, FusedLinear, fuse_activations
from cortado.lowering.graph import exported, graph_of
from cortado.lowering.horizontal import merge_siblings
from cortado.lowering.lower import lowered
from cortado.nets.googlenet import Inception
from cortado.nets.squeezenet import Fire


class Attention(nn.Module):
    """Query, key and value as layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 6)

    def forward(self, activation):
        query, key, value = self.query(activation), self.key(activation), self.value(activation)
        return functional.scaled_dot_product_attention(query, key, value)


class Cousins(nn.Module):
    """Convolutions of one input that differ in one thing each."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.ModuleList(
            [
                nn.Conv2d(4, 4, 3, padding=1),
                nn.Conv2d(4, 4, 3, padding=1, groups=2),
                nn.Conv2d(4, 4, 3, padding=2, dilation=2),
                nn.Conv2d(4, 4, 1),
            ]
        )

    def forward(self, activation):
        return torch.cat([layer(activation) for layer in self.all], 1)


def assert_same(found: nn.Module, wanted: nn.Module, shape: tuple[int, ...]) -> None:
    for batch in (1, 3, 8):
        inputs = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            torch.testing.assert_close(found(inputs), wanted(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "shape", "groups"),
    [
        (Inception(16, 4, 6, 8, 2, 4, 4), (16, 9, 9), [3]),
        (Attention(), (5, 8), [3]),
        (Fire(8, 4, 6, 6, False, False), (8, 7, 7), []),
        (Cousins(), (4, 7, 7), []),
    ],
    ids=["inception", "attention", "fire", "cousins"],
)
def test_siblings_of_one_kind_become_one(network, shape, groups):
    graph = graph_of(network.eval(), torch.randn(2, *shape))
    assert [len(group) for group in merge_siblings(graph)] == groups
    assert_same(graph, network, shape)
    multiplying = [n for n in graph.graph.nodes if "conv2d" in str(n.target) or "linear" in str(n.target)]
    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(multiplying) == len(layers) - sum(size - 1 for size in groups)


def test_siblings_with_one_weight_may_be_merged_too():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, activation):
            return self.layer(activation) * torch.sigmoid(self.layer(activation))

    network = Shared().eval()
    graph = graph_of(network, torch.randn(2, 4))
    assert [len(group) for group in merge_siblings(graph)] == [2]
    assert_same(graph, network, (4,))


ACTIVATIONS = [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.SiLU(), nn.GELU()]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_activation_becomes_part_of_the_layer(activation):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1), activation, nn.Conv2d(8, 8, 3, groups=8, dilation=2),
        activation, nn.Flatten(), nn.LazyLinear(5), activation,
    )  # fmt: skip
    network(torch.randn(2, 3, 12, 12))
    graph = graph_of(network.eval(), torch.randn(2, 3, 12, 12))
    assert len(fuse_activations(graph)) == 3
    kinds = [type(module) for module in graph.modules()]
    assert kinds.count(FusedConvolution) == 2 and kinds.count(FusedLinear) == 1
    assert_same(graph, network, (3, 12, 12))


def test_activation_stays_where_another_reads_the_layer():
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, activation):
            made = self.conv(activation)
            return torch.relu(made) + made

    network = Read().eval()
    graph = graph_of(network, torch.randn(2, 3, 4, 4))
    assert fuse_activations(graph) == ()
    assert_same(graph, network, (3, 4, 4))


def test_fused_layer_is_traced_as_plain_operators_and_has_gradients():
    layer = FusedConvolution(torch.randn(4, 3, 3, 3), torch.randn(4), "relu", ((1, 1), (1, 1), (1, 1), 1))
    inputs = torch.randn(2, 3, 5, 5, requires_grad=True)
    layer(inputs).sum().backward()
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0
    names = [str(node.target) for node in exported(layer, torch.randn(2, 3, 5, 5)).graph.nodes]
    assert "aten.conv2d.default" in names and "aten.relu.default" in names


def test_fused_layer_follows_its_weight_and_can_be_copied():
    layer = FusedConvolution(torch.randn(4, 3, 3, 3), None, "none", ((1, 1), (1, 1), (1, 1), 1))
    inputs = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        before = layer(inputs)
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(inputs), before * 2)
        torch.testing.assert_close(copy.deepcopy(layer)(inputs), before * 2)


def test_lowered_merges_when_asked():
    network = nn.Sequential(Inception(16, 4, 6, 8, 2, 4, 4), nn.BatchNorm2d(20)).eval()
    made = lowered(network, torch.randn(2, 16, 9, 9), merge=True)
    assert any("merged" in name for name, _ in made.named_modules())
    assert_same(made, network, (16, 9, 9))


def test_fused_layer_follows_a_weight_put_in_the_place_of_its_own():
    layer = FusedConvolution(torch.randn(4, 3, 3, 3), None, "none", ((1, 1), (1, 1), (1, 1), 1))
    inputs = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        before = layer(inputs)
        layer.weight = nn.Parameter(layer.weight.detach() * 2, requires_grad=False)
        torch.testing.assert_close(layer(inputs), before * 2)


def test_later_siblings_are_merged_too():
    network = nn.Sequential(Inception(16, 4, 6, 8, 2, 4, 4), nn.BatchNorm2d(20)).eval()
    example = torch.randn(2, 16, 9, 9)
    made = graph_of(network, example)
    assert len(merge_siblings(made)) == 1
    graph = made.graph
    source = next(node for node in graph.nodes if node.op == "placeholder")
    made.extra = nn.Conv2d(16, 5, 3, padding=1)
    with graph.inserting_after(source):
        weights = [graph.get_attr(f"extra.{name}") for name in ("weight", "bias")]
    last = next(node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(last):
        settings = ([1, 1], [1, 1], [1, 1], 1)
        duplicates = [
            graph.call_function(torch.ops.aten.conv2d.default, (source, *weights, *settings)) for _ in range(2)
        ]
        joined = graph.call_function(torch.ops.aten.cat.default, ([*last.args[0], *duplicates], 1))
    last.args = ((joined,),)
    made.recompile()
    wanted = made(example)
    assert len(merge_siblings(made)) == 1
    made.recompile()
    torch.testing.assert_close(made(example), wanted, rtol=1e-5, atol=1e-5)
