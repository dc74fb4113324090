"""Which channels belong together, by hand: sums, concatenations, groups, shuffles, heads, ties; and what cannot be cut."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.zoo.predicted import zeroed
from cortado.errors import BadNetwork, BadValue
from cortado.file.artifact import decode, encode
from cortado.network.coupling.cut import cut
from cortado.network.coupling.find import find_groups
from cortado.network.coupling.graph_net import cut_as_graph
from cortado.network.view import View
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.quantized import Quantized


class Net(nn.Module):
    """Layers by name and a forward given with them."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.steps = [forward]

    def forward(self, *activations: Tensor) -> Tensor:
        return self.steps[0](self, *activations)


IMAGE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def found(network: nn.Module, example=IMAGE) -> dict[str, int]:
    """The free groups: name -> count."""
    return {group.name: group.count for group in find_groups(network.eval(), example).free}


def head(network: Net, activation: Tensor) -> Tensor:
    return network.head(activation.mean((2, 3)))


def test_layers_that_are_added_share_their_channels() -> None:
    net = Net(
        lambda n, x: head(n, n.one(x) + n.two(x)),
        one=nn.Conv2d(3, 8, 3, padding=1),
        two=nn.Conv2d(3, 8, 1),
        head=nn.Linear(8, 2),
    )
    groups = find_groups(net.eval(), IMAGE)
    (group,) = groups.free
    assert {slot.names[0] for slot in group.of_role("producer")} == {"one.weight", "two.weight"}
    assert [slot.names[0] for slot in group.of_role("consumer")] == ["head.weight"]
    assert {slot.names[0] for slot in group.of_role("rider")} == {"one.bias", "two.bias"}


def test_layers_that_are_concatenated_do_not() -> None:
    net = Net(
        lambda n, x: head(n, torch.cat([n.one(x), n.two(x)], 1)),
        one=nn.Conv2d(3, 8, 1),
        two=nn.Conv2d(3, 4, 1),
        head=nn.Linear(12, 2),
    )
    assert found(net) == {"one": 8, "two": 4}


def test_flattened_places_of_a_channel_go_with_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    (group,) = find_groups(net.eval(), IMAGE).free
    (columns,) = group.of_role("consumer")
    assert group.count == 4
    assert torch.equal(columns.units, torch.arange(4).repeat_interleave(16))


def test_depthwise_channels_go_with_those_they_read() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2)
    )
    groups = find_groups(net.eval(), IMAGE)
    (group,) = groups.free
    assert group.count == 6
    cut(net, groups, {group: torch.tensor([0, 2, 5])})
    depthwise = net[1]
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (3, 3, 6)
    assert net(IMAGE).shape == (2, 2)


def test_groups_of_a_convolution_lose_as_many_channels_each() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 2),
    )
    groups = find_groups(net.eval(), IMAGE)
    cut(net, groups, {group: torch.arange(1, group.count) for group in groups.free})
    layer = net[2]
    assert layer.in_channels == layer.weight.shape[1] * layer.groups == net[0].out_channels
    assert layer.out_channels % layer.groups == 0
    assert net(IMAGE).shape == (2, 2)


def test_outputs_of_the_network_stay() -> None:
    groups = find_groups(nn.Sequential(nn.Linear(4, 3)).eval(), torch.randn(2, 4))
    assert not groups.free
    assert "an output of the network" in [frozen.reason for frozen in groups.frozen]


def test_unknown_operator_freezes_its_group_alone() -> None:
    def forward(net: Net, activation: Tensor) -> Tensor:
        activation = net.one(activation)
        activation = torch.linalg.inv(activation[:, :6] + 9 * torch.eye(6))  # this line is named
        return net.out(functional.relu(net.two(activation)).flatten(1))

    net = Net(forward, one=nn.Conv2d(3, 6, 1), two=nn.Conv2d(6, 5, 1), out=nn.Linear(180, 2))
    groups = find_groups(net.eval(), IMAGE)
    assert {group.name: group.count for group in groups.free} == {"two": 5}
    (reason,) = {frozen.reason for frozen in groups.frozen if frozen.name == "one"}
    assert reason.startswith("linalg_inv") and "test_groups.py" in reason and "torch.linalg.inv" in reason


def test_code_with_a_fixed_number_is_left_alone_by_line() -> None:
    net = Net(lambda n, x: n.out(n.one(x).view(2, 8 * 36)), one=nn.Conv2d(3, 8, 1), out=nn.Linear(288, 2))
    groups = find_groups(net.eval(), IMAGE)
    assert not groups.free
    assert any("cannot follow a cut" in frozen.reason and "test_groups.py" in frozen.reason for frozen in groups.frozen)


class Heads(nn.Module):
    """Attention whose code reads the number of heads from an attribute."""

    def __init__(self, heads: int = 4, shared: int = 4) -> None:
        super().__init__()
        self.num_heads, self.num_shared = heads, shared
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 4 * shared), nn.Linear(16, 4 * shared)
        self.leave = nn.Linear(16, 16)

    def forward(self, activation: Tensor) -> Tensor:
        count, length, _ = activation.shape
        query = self.query(activation).view(count, length, self.num_heads, -1).transpose(1, 2)
        key = self.key(activation).view(count, length, self.num_shared, -1).transpose(1, 2)
        value = self.value(activation).view(count, length, self.num_shared, -1).transpose(1, 2)
        times = self.num_heads // self.num_shared
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.leave(mixed.transpose(1, 2).reshape(count, length, -1))


@pytest.mark.parametrize("shared", [4, 2])
def test_heads_are_cut_whole_and_the_attribute_follows(shared: int) -> None:
    net = nn.Sequential(Heads(4, shared))
    groups = find_groups(net.eval(), torch.randn(2, 5, 16))
    (heads,) = [group for group in groups.free if group.heads]
    assert heads.count == shared
    cut(net, groups, {heads: torch.arange(1, shared)})
    layer = net[0]
    assert layer.num_heads == 4 - 4 // shared
    assert layer.query.out_features == 4 * layer.num_heads
    assert layer.leave.in_features == layer.query.out_features
    assert net(torch.randn(3, 7, 16)).shape == (3, 7, 16)


def test_tied_embedding_and_head_lose_their_width_once_and_stay_tied() -> None:
    net = nn.Sequential(nn.Embedding(20, 8), nn.LayerNorm(8), nn.Linear(8, 20, bias=False))
    net[2].weight = net[0].weight
    tokens = torch.randint(20, (2, 5))
    groups = find_groups(net.eval(), tokens)
    (group,) = groups.all
    assert not group.exact and "layer_norm" in group.reason
    cut(net, groups, {group: torch.arange(3, 8)})
    assert net[2].weight is net[0].weight
    assert (net[0].embedding_dim, net[2].in_features, net[1].normalized_shape) == (5, 5, (5,))


def test_units_of_a_recurrent_layer_go_from_all_gates() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True), nn.Linear(10, 2)

        def forward(self, activation: Tensor) -> Tensor:
            return self.head(self.lstm(activation)[0][:, -1])

    net = Reader().eval()
    groups = find_groups(net, torch.randn(2, 4, 3))
    (group,) = groups.free
    cut(net, groups, {group: torch.tensor([1, 4])})
    assert (net.lstm.hidden_size, net.lstm.weight_ih_l1.shape, net.head.in_features) == (2, (8, 4), 4)


def test_keeping_none_or_a_unit_that_is_not_there_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    groups = find_groups(net, torch.randn(2, 4))
    (group,) = groups.free
    for keep in (torch.tensor([], dtype=torch.int64), torch.tensor([6]), torch.tensor([-1])):
        with pytest.raises(BadValue, match=r"0 has units 0\.\.5, got"):
            cut(net, groups, {group: keep})
    assert net[0].out_features == 6


def test_network_that_cannot_be_traced_says_so_with_the_line() -> None:
    def forward(net: Net, activation: Tensor) -> Tensor:
        return net.one(activation) if float(activation.sum()) > 0 else net.two(activation)

    net = Net(forward, one=nn.Linear(4, 2), two=nn.Linear(4, 2)).eval()
    with pytest.raises(BadNetwork, match=r"cannot be traced|torch\.export"):
        find_groups(net, torch.randn(2, 4))


def test_cut_goes_through_held_weights_as_through_plain_ones() -> None:
    """Cut then held is held then cut."""
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    attached = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    attached.load_state_dict(original.state_dict())
    for layer in (attached[0], attached[2]):
        attach(layer, "weight", Quantized.of(layer.weight.detach(), bits=8))
    example, keep = torch.randn(2, 4), torch.tensor([0, 3, 4])
    before = attached[0].weight.detach()[keep], attached[2].weight.detach()[:, keep]
    groups = find_groups(attached, example)
    (group,) = groups.free
    cut(attached, groups, {group: keep})
    assert torch.equal(attached[0].weight, before[0]) and torch.equal(attached[2].weight, before[1])
    assert (attached[0].out_features, attached[2].in_features) == (3, 3)


def depthwise_net() -> nn.Module:
    layers = [nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)).eval()


def test_a_cut_network_is_stored_and_restored() -> None:
    original, small = depthwise_net(), depthwise_net()
    small.load_state_dict(original.state_dict())
    attach(small[5], "weight", Dense(small[5].weight.detach()))
    view = View(small, original, IMAGE)
    (group,) = view.groups.free
    view.cut({group: torch.tensor([1, 2])})
    again = decode(encode(small, original), original)
    assert torch.equal(again(IMAGE), small(IMAGE))
    assert again[1].groups == 2
    assert torch.equal(view.kept["0"], torch.tensor([1, 2]))


def test_heads_and_their_widths_on_one_packed_weight_are_two_groups() -> None:
    class Packed(nn.Module):
        """Query, key and value from one layer, as most small language models have them."""

        def __init__(self) -> None:
            super().__init__()
            self.heads, self.all, self.leave = 2, nn.Linear(12, 36), nn.Linear(12, 12)

        def forward(self, activation: Tensor) -> Tensor:
            query, key, value = self.all(activation).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
            mixed = functional.scaled_dot_product_attention(query, key, value)
            return self.leave(mixed.transpose(1, 2).flatten(2))

    groups = find_groups(nn.Sequential(Packed()).eval(), torch.randn(2, 5, 12))
    assert [(group.count, group.heads) for group in groups.all] == [(2, True), (6, False)]
    (heads,) = groups.free
    assert heads.heads


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor | None = None


def test_outputs_in_a_class_of_ones_own_are_seen() -> None:
    class Telling(nn.Sequential):
        def forward(self, inputs: Tensor) -> Answer:
            hidden = self[1](self[0](inputs).relu())
            return Answer(self[2](hidden.relu()), hidden)

    torch.manual_seed(0)
    network, inputs = Telling(nn.Linear(6, 16), nn.Linear(16, 8), nn.Linear(8, 3)).eval(), torch.randn(2, 6)
    groups = find_groups(network, inputs)
    assert {group.name: group.count for group in groups.free} == {"0": 16}
    keeps = {groups.free[0]: torch.arange(5, 16)}
    wanted = zeroed(network, groups, keeps)(inputs)
    with pytest.raises(BadNetwork, match=r"returns its outputs in Answer, .*register_dataclass"):
        cut_as_graph(network, groups, keeps)
    cut(network, groups, keeps)
    found = network(inputs)
    assert isinstance(found, Answer) and network[0].out_features == 11
    torch.testing.assert_close((found.logits, found.hidden), (wanted.logits, wanted.hidden))


class Scan(nn.Module):
    """A selective scan: its inner width follows a cut, the size of its state is written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.gate = nn.Linear(12, 16), nn.Linear(16, 16)
        self.write, self.read = nn.Linear(16, 4), nn.Linear(16, 4)
        self.decay, self.skip = nn.Parameter(torch.rand(16, 4)), nn.Parameter(torch.rand(16))
        self.leave = nn.Linear(16, 12)

    def forward(self, words: Tensor) -> Tensor:
        inner = functional.silu(self.enter(words))
        step, write, read = functional.softplus(self.gate(inner)), self.write(inner), self.read(inner)
        state, found = inner.new_zeros(inner.shape[0], inner.shape[2], 4), []
        for t in range(inner.shape[1]):
            decay = torch.exp(-step[:, t, :, None] * self.decay)
            state = decay * state + step[:, t, :, None] * write[:, t, None, :] * inner[:, t, :, None]
            found.append((state * read[:, t, None, :]).sum(-1))
        return self.leave(torch.stack(found, 1) + inner * self.skip)


def test_a_group_that_only_meets_a_fixed_number_is_cut() -> None:
    torch.manual_seed(0)
    network, words = nn.Sequential(Scan(), Scan(), nn.Linear(12, 3)).eval(), torch.randn(2, 5, 12)
    groups = find_groups(network, words)
    assert sorted(group.count for group in groups.free) == [12, 12, 16, 16]
    assert [frozen.count for frozen in groups.frozen if "cannot follow a cut" in frozen.reason] == [4, 4]
    inner = [group for group in groups.free if group.count == 16]
    keeps = {group: torch.arange(3 + number, 16) for number, group in enumerate(inner)}
    wanted = zeroed(network, groups, keeps)(words)
    cut(network, groups, keeps)
    assert [network[number].enter.out_features for number in (0, 1)] == [13, 12]
    torch.testing.assert_close(network(words), wanted)


class Particular(nn.Module):
    """Takes two activations, and insists on the width of the first."""

    def forward(self, one, other):
        if one.shape[1] != 6:
            raise ValueError("six, please")
        return torch.cat([torch.relu(one), torch.relu(other)], 1)


class TwoPaths(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other, self.both, self.head = nn.Linear(4, 6), nn.Linear(4, 8), Particular(), nn.Linear(14, 2)

    def forward(self, values):
        return self.head(self.both(self.one(values), self.other(values)))


def test_code_without_numbers_leaves_only_those_whole_that_fail_alone():
    groups = find_groups(TwoPaths().eval(), torch.randn(2, 4))
    assert [group.name for group in groups.free] == ["other"]
    assert [(frozen.name, "six, please" in frozen.reason) for frozen in groups.tried] == [("one", True)]
