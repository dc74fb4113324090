"""What is known of layer classes: axes agree with shapes, and a resized layer is what its class would build."""

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork, BadValue
from cortado.layers.kind import Kind
from cortado.layers.kinds import KINDS, is_known_matrix, kind_of, role_of
from cortado.layers.linear import linear_axes, whole_rows
from cortado.layers.roles import CLIP, MATMUL
from cortado.layers.widths import match_widths
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense

CASES = [
    (lambda: nn.Linear(6, 4), {"out_features": 3}, lambda: nn.Linear(6, 3)),
    (lambda: nn.Linear(6, 4, bias=False), {"in_features": 2}, lambda: nn.Linear(2, 4, bias=False)),
    (lambda: nn.Bilinear(3, 4, 5), {"in2_features": 2}, lambda: nn.Bilinear(3, 2, 5)),
    (
        lambda: nn.Conv2d(4, 8, 3, 2, "valid", 2, 4, True, "reflect"),
        {"in_channels": 2, "out_channels": 4, "groups": 2},
        lambda: nn.Conv2d(2, 4, 3, 2, "valid", 2, 2, True, "reflect"),
    ),
    (lambda: nn.Conv1d(4, 8, 3), {"out_channels": 5}, lambda: nn.Conv1d(4, 5, 3)),
    (lambda: nn.Conv3d(4, 8, (1, 2, 3)), {"in_channels": 3}, lambda: nn.Conv3d(3, 8, (1, 2, 3))),
    (
        lambda: nn.ConvTranspose2d(4, 8, 3, 2, 1, 1),
        {"out_channels": 6},
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1),
    ),
    (lambda: nn.BatchNorm2d(8, 1e-3), {"num_features": 3}, lambda: nn.BatchNorm2d(3, 1e-3)),
    (lambda: nn.LayerNorm(8, bias=False), {"normalized_shape": (5,)}, lambda: nn.LayerNorm(5, bias=False)),
    (lambda: nn.GroupNorm(4, 8), {"num_groups": 2, "num_channels": 4}, lambda: nn.GroupNorm(2, 4)),
    (lambda: nn.InstanceNorm1d(8, affine=True), {"num_features": 3}, lambda: nn.InstanceNorm1d(3, affine=True)),
    (lambda: nn.Embedding(9, 4, padding_idx=1), {"embedding_dim": 3}, lambda: nn.Embedding(9, 3, padding_idx=1)),
    (
        lambda: nn.LSTM(5, 7, 2, bidirectional=True, proj_size=3),
        {"hidden_size": 6},
        lambda: nn.LSTM(5, 6, 2, bidirectional=True, proj_size=3),
    ),
    (lambda: nn.GRU(5, 7, bias=False), {"input_size": 4}, lambda: nn.GRU(4, 7, bias=False)),
    (lambda: nn.RNN(5, 7, nonlinearity="relu"), {"hidden_size": 2}, lambda: nn.RNN(5, 2, nonlinearity="relu")),
    (lambda: nn.MultiheadAttention(8, 2), {"embed_dim": 4}, lambda: nn.MultiheadAttention(4, 2)),
    (
        lambda: nn.MultiheadAttention(8, 2, kdim=3, vdim=5, add_bias_kv=True),
        {"kdim": 4},
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=5, add_bias_kv=True),
    ),
]


@pytest.mark.parametrize(("make", "sizes", "expected"), CASES)
def test_resized_gives_the_layer_its_class_would_build(make, sizes, expected):
    layer = make().eval()
    state = torch.random.get_rng_state()
    resized = kind_of(layer).resized(layer, **sizes)
    assert torch.equal(state, torch.random.get_rng_state())
    wanted = expected()
    assert type(resized) is type(layer) and not resized.training
    assert repr(resized) == repr(wanted)
    shapes = {name: value.shape for name, value in resized.state_dict().items()}
    assert shapes == {name: value.shape for name, value in wanted.state_dict().items()}
    wanted.load_state_dict(resized.state_dict())
    assert all(not value.any() for value in resized.state_dict().values())


@pytest.mark.parametrize("make", [case[0] for case in CASES])
def test_axes_describe_every_tensor_of_a_layer(make):
    layer = make()
    kind = kind_of(layer)
    axes = kind.axes(layer)
    assert set(axes) == {name for name in layer.state_dict() if not name.endswith("num_batches_tracked")}
    for name, axis in axes.items():
        shape = layer.state_dict()[name].shape
        known = {axis.output, *axis.inputs}
        assert all(place is None or place < len(shape) for place in known)
        assert axis.output is None or shape[axis.output] % axis.blocks == 0


@pytest.mark.parametrize(
    ("layer", "name", "out", "into"),
    [
        (nn.Linear(6, 4), "weight", 4, [6]),
        (nn.Bilinear(3, 4, 5), "weight", 5, [3, 4]),
        (nn.Conv2d(4, 8, 3, groups=2), "weight", 8, [4]),
        (nn.ConvTranspose1d(4, 8, 3), "weight", 8, [4]),
        (nn.Embedding(9, 4), "weight", 4, [9]),
        (nn.LSTM(5, 7), "weight_ih_l0", 7, [5]),
        (nn.GRU(5, 7), "weight_hh_l0", 7, [7]),
        (nn.MultiheadAttention(8, 2), "in_proj_weight", 8, [8]),
        (nn.MultiheadAttention(8, 2), "out_proj.weight", 8, [8]),
        (nn.BatchNorm1d(6), "running_var", 6, []),
    ],
)
def test_axes_count_output_and_input_channels(layer, name, out, into):
    axes = kind_of(layer).axes(layer)[name]
    shape = layer.state_dict()[name].shape
    assert shape[axes.output] == out * axes.blocks
    if into:
        assert [shape[axis] * axes.groups for axis in axes.inputs] == into


def test_kind_of_sees_subclasses_and_nothing_else():
    class Mine(nn.Linear):
        pass

    assert kind_of(Mine(2, 3)) is KINDS[nn.Linear]
    assert kind_of(nn.MultiheadAttention(4, 2).out_proj) is KINDS[nn.Linear]
    assert kind_of(nn.ReLU()).role == CLIP and kind_of(nn.GELU()) is None
    assert kind_of(nn.Sequential()) is None


def test_kind_of_sees_through_held_weights():
    layer = nn.MultiheadAttention(8, 2)
    original = set(kind_of(layer).axes(layer))
    attach(layer, "in_proj_weight", Dense(torch.zeros(24, 8)))
    attach(layer.out_proj, "weight", Dense(torch.zeros(8, 8)))
    assert kind_of(layer) is KINDS[nn.MultiheadAttention]
    assert set(kind_of(layer).axes(layer)) == original
    resized = kind_of(layer).resized(layer, embed_dim=4)
    assert type(resized) is nn.MultiheadAttention and resized.in_proj_weight.shape == (12, 4)


def test_resized_keeps_a_subclass_and_its_plain_attributes():
    class Mine(nn.Linear):
        def __init__(self, gain):
            super().__init__(4, 3)
            self.gain = gain

        def forward(self, activation):
            return super().forward(activation) * self.gain

    layer = Mine(2.0)
    resized = kind_of(layer).resized(layer, in_features=2)
    assert type(resized) is Mine and resized.gain == 2.0 and resized.weight.shape == (3, 2)
    with torch.no_grad():
        resized.bias.fill_(1)
    assert torch.equal(resized(torch.zeros(1, 2)), torch.full((1, 3), 2.0))
    assert layer.weight.shape == (3, 4)


def test_resized_refuses_what_it_cannot_know():
    class Mine(nn.Linear):
        def __init__(self):
            super().__init__(4, 3)
            self.gate = nn.Parameter(torch.ones(3))

    with pytest.raises(BadNetwork, match="'gate'"):
        kind_of(Mine()).resized(Mine(), in_features=2)
    layer = nn.Conv2d(4, 8, 3, groups=4)
    with pytest.raises(BadValue, match="width"):
        kind_of(layer).resized(layer, width=2)
    with pytest.raises(BadValue, match="in_channels"):
        kind_of(layer).resized(layer, in_channels=3)


class Scaled(nn.Module):
    """A linear layer with a factor of its own, which is no torch layer."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.inputs, self.outputs = nn.Parameter(torch.randn(outputs, inputs)), inputs, outputs

    def forward(self, values):
        return 2 * nn.functional.linear(values, self.weight)


def follow_scaled(layer):
    layer.outputs, layer.inputs = layer.weight.shape


def test_a_users_class_brings_its_own_kind(monkeypatch):
    layer = Scaled(3, 2)
    assert kind_of(layer) is None and role_of(layer) is None
    kind = Kind("linear", Scaled, ("inputs", "outputs"), (), linear_axes, follow_scaled, MATMUL, patches=whole_rows)
    monkeypatch.setattr(Scaled, "__cortado_kind__", kind, raising=False)
    assert kind_of(layer) is kind and role_of(layer) == MATMUL and is_known_matrix(layer)
    layer.weight = nn.Parameter(layer.weight[:1].detach())
    match_widths(layer)
    assert layer.outputs == 1

    class Doubled(Scaled):
        def forward(self, values):
            return super().forward(values) + values

    assert kind_of(Doubled(3, 3)) is kind
    assert role_of(Doubled(3, 3)) is None and not is_known_matrix(Doubled(3, 3))
