"""A convolution over its kept columns computes what the whole one computes, and multiplies less."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cortado.lowering.graph import graph_of
from cortado.lowering.lower import lowered
from cortado.lowering.positions import CACHED_BYTES, Gathered, gather_positions
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense
from cortado.runtimes.torch_eager import TorchEager


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def thinned(layer, share=0.3, seed=0):
    """The layer with zeros in the same columns of all filters of a group; groups keep different numbers of them."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(layer.groups, *layer.weight.shape[1:], generator=generator) < share
    with torch.no_grad():
        layer.weight.mul_(kept.repeat_interleave(layer.out_channels // layer.groups, 0))
    return layer.eval()


LAYERS = {
    "conv1d": (nn.Conv1d(4, 6, 5, stride=2, padding=1, dilation=2), (4, 19)),
    "conv2d": (nn.Conv2d(4, 6, 3, padding=1), (4, 7, 9)),
    "without bias or padding": (nn.Conv2d(4, 6, 3, bias=False), (4, 7, 9)),
    "uneven": (nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(0, 3), dilation=(1, 2)), (4, 9, 11)),
    "same": (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=2), (4, 9, 8)),
    "one by one": (nn.Conv2d(8, 6, 1, stride=2), (8, 5, 5)),
    "groups": (nn.Conv2d(6, 8, 3, padding=1, groups=2), (6, 5, 6)),
    "depthwise": (nn.Conv2d(6, 12, 3, padding=1, groups=6), (6, 5, 6)),
    "reflect": (nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"), (4, 6, 7)),
    "conv3d": (nn.Conv3d(2, 3, 3, stride=(1, 2, 1), padding=1), (2, 4, 5, 6)),
}


@pytest.fixture(params=list(LAYERS))
def case(request):
    layer, shape = copy.deepcopy(LAYERS[request.param])
    return thinned(layer), shape


def test_gathered_convolution_computes_the_same(case):
    layer, shape = case
    made = Gathered(layer, shape[1:])
    for batch in (1, 3):
        activation = draw(batch, *shape)
        torch.testing.assert_close(made(activation), layer(activation), rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(made(activation), layer(activation), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made(draw(*shape)), layer(draw(*shape)), rtol=1e-5, atol=1e-5)


def test_it_still_reads_as_the_convolution(case):
    layer, shape = case
    assert torch.equal(Gathered(layer, shape[1:]).weight, layer.weight)


def test_activations_of_another_size_are_taken_as_well(case):
    layer, shape = case
    other = draw(2, shape[0], *(size + 3 for size in shape[1:]))
    torch.testing.assert_close(Gathered(layer, shape[1:])(other), layer(other), rtol=1e-5, atol=1e-5)


def test_large_batches_go_in_parts():
    layer = thinned(nn.Conv2d(16, 8, 3, padding=1))
    made, activation = Gathered(layer, (32, 32)), draw(7, 16, 32, 32)
    assert made.index.numel() * 4 * 7 > 2 * CACHED_BYTES
    with torch.no_grad():
        torch.testing.assert_close(made(activation), layer(activation), rtol=1e-5, atol=1e-5)


def test_layer_of_zeros_gives_its_bias():
    layer = thinned(nn.Conv2d(3, 4, 3), share=0.0)
    activation = draw(2, 3, 5, 5)
    torch.testing.assert_close(Gathered(layer, (5, 5))(activation), layer(activation))


def network():
    torch.manual_seed(0)
    body = (
        nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4),
    )  # fmt: skip
    made = nn.Sequential(*body).eval()
    for place in (3, 5):
        thinned(made[place], 0.2)
    return made


def in_copy(net, activation):
    made = copy.deepcopy(net)
    gather_positions(made, activation)
    return made


def test_only_large_layers_with_few_columns_are_replaced():
    net, activation = network(), draw(2, 3, 8, 8)
    made = in_copy(net, activation)
    assert [place for place, layer in enumerate(made) if isinstance(layer, Gathered)] == [3]
    assert type(net[3]) is nn.Conv2d
    with torch.no_grad():
        torch.testing.assert_close(made(activation), net(activation), rtol=1e-5, atol=1e-5)


def test_share_of_columns_decides():
    assert gather_positions(network(), draw(2, 3, 8, 8), most=0.01) == ()
    assert gather_positions(network(), draw(2, 3, 8, 8), most=1.0) == ("0", "3")


def test_it_multiplies_as_many_times_less_as_columns_are_left():
    net, activation = network(), draw(2, 3, 8, 8)
    kept = int((net[3].weight != 0).any(0).sum())
    flops = []
    for module in (net[3], in_copy(net, activation)[3]):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            module(draw(2, 32, 8, 8))
        flops.append(counter.get_total_flops())
    assert flops[1] / flops[0] == pytest.approx(kept / 288)


def test_held_weights_are_read_through_their_forms():
    net, activation = network(), draw(2, 3, 8, 8)
    weight = net[3].weight.detach()
    attach(net[3], "weight", Dense(weight).select(weight != 0))
    made = in_copy(net, activation)
    assert isinstance(made[3], Gathered)
    torch.testing.assert_close(made(activation), net(activation), rtol=1e-5, atol=1e-5)


class Louder(nn.Conv2d):
    """A convolution of somebody's own."""

    def forward(self, activation):
        return 2 * super().forward(activation)


class Twice(nn.Module):
    """One convolution that runs twice, one whose weight something else reads, one with a forward of its own."""

    def __init__(self):
        super().__init__()
        self.again, self.read = thinned(nn.Conv2d(32, 32, 3, padding=1)), thinned(nn.Conv2d(32, 32, 3, padding=1))
        self.own = thinned(Louder(32, 32, 3))

    def forward(self, activation):
        return self.own(self.read(self.again(self.again(activation)))) + self.read.weight.sum()


def test_what_may_do_more_is_left_alone():
    assert gather_positions(Twice().eval(), draw(1, 32, 5, 5), most=1.0) == ()


def test_lowered_folds_norms_and_gathers():
    net, activation = network(), draw(2, 3, 8, 8)
    made = lowered(net, activation, gather=True)
    assert isinstance(made[1], nn.Identity) and isinstance(made[3], Gathered)
    with torch.no_grad():
        torch.testing.assert_close(made(activation), net(activation), rtol=1e-5, atol=1e-5)


def test_gathered_network_can_be_traced_and_exported_for_any_batch(tmp_path):
    net, activation = network(), draw(2, 3, 8, 8)
    made = lowered(net, activation, gather=True)
    session = TorchEager().load(TorchEager().lower(made, activation, tmp_path), 1)
    graph = graph_of(made, activation)
    for batch in (1, 5):
        inputs = draw(batch, 3, 8, 8)
        with torch.no_grad():
            wanted = net(inputs)
            torch.testing.assert_close(graph(inputs), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(session(inputs)[0], wanted, rtol=1e-5, atol=1e-5)


def test_copy_and_state_are_whole():
    layer = thinned(nn.Conv2d(4, 6, 3))
    made, activation = Gathered(layer, (6, 6)), draw(2, 4, 6, 6)
    duplicate = copy.deepcopy(made)
    duplicate.load_state_dict(made.state_dict())
    assert torch.equal(duplicate(activation), made(activation))
