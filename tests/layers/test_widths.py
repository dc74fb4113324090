"""A layer whose tensors were cut says of itself what a layer made in that size says."""

import pytest
import torch
from torch import nn

from cortado.layers.kind import groups_left
from cortado.layers.widths import match_widths
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense

CASES = [
    (lambda: nn.Linear(6, 4), lambda: nn.Linear(5, 3)),
    (lambda: nn.Bilinear(3, 4, 5), lambda: nn.Bilinear(2, 3, 4)),
    (lambda: nn.Embedding(9, 4), lambda: nn.Embedding(7, 3)),
    (lambda: nn.EmbeddingBag(9, 4), lambda: nn.EmbeddingBag(9, 3)),
    (lambda: nn.Conv1d(4, 8, 3), lambda: nn.Conv1d(3, 5, 3)),
    (lambda: nn.Conv3d(4, 8, 3, bias=False), lambda: nn.Conv3d(3, 7, 3, bias=False)),
    (lambda: nn.Conv2d(8, 8, 3, groups=8), lambda: nn.Conv2d(5, 5, 3, groups=5)),
    (lambda: nn.Conv2d(4, 8, 3, groups=4), lambda: nn.Conv2d(3, 6, 3, groups=3)),
    (lambda: nn.Conv2d(8, 8, 3, groups=4), lambda: nn.Conv2d(6, 6, 3, groups=3)),
    (lambda: nn.Conv2d(8, 16, 3, groups=4), lambda: nn.Conv2d(4, 8, 3, groups=4)),
    (lambda: nn.Conv2d(8, 16, 3, groups=4), lambda: nn.Conv2d(8, 12, 3, groups=4)),
    (lambda: nn.ConvTranspose2d(4, 8, 3), lambda: nn.ConvTranspose2d(3, 5, 3)),
    (lambda: nn.ConvTranspose2d(6, 6, 3, groups=6), lambda: nn.ConvTranspose2d(5, 5, 3, groups=5)),
    (lambda: nn.BatchNorm2d(8), lambda: nn.BatchNorm2d(3)),
    (lambda: nn.BatchNorm1d(8, affine=False), lambda: nn.BatchNorm1d(3, affine=False)),
    (lambda: nn.InstanceNorm1d(8, affine=True), lambda: nn.InstanceNorm1d(3, affine=True)),
    (lambda: nn.InstanceNorm3d(8, affine=True), lambda: nn.InstanceNorm3d(3, affine=True)),
    (lambda: nn.GroupNorm(4, 8), lambda: nn.GroupNorm(4, 4)),
    (lambda: nn.GroupNorm(4, 8), lambda: nn.GroupNorm(3, 6)),
    (lambda: nn.LayerNorm(8), lambda: nn.LayerNorm(5)),
    (lambda: nn.LayerNorm((8, 3), bias=False), lambda: nn.LayerNorm((5, 3), bias=False)),
    (lambda: nn.RMSNorm(8), lambda: nn.RMSNorm(5)),
    (lambda: nn.LSTM(5, 7, 2, bidirectional=True), lambda: nn.LSTM(4, 6, 2, bidirectional=True)),
    (lambda: nn.LSTM(5, 7, proj_size=3), lambda: nn.LSTM(4, 6, proj_size=2)),
    (lambda: nn.GRU(5, 7, bias=False), lambda: nn.GRU(4, 6, bias=False)),
    (lambda: nn.RNN(5, 7), lambda: nn.RNN(4, 6)),
    (lambda: nn.MultiheadAttention(8, 2), lambda: nn.MultiheadAttention(6, 2)),
    (lambda: nn.MultiheadAttention(8, 2, kdim=3, vdim=5), lambda: nn.MultiheadAttention(6, 2, kdim=2, vdim=4)),
]


def ints(layer):
    """The whole numbers a layer keeps, alone or in a tuple."""
    return {
        name: value
        for name, value in layer.__dict__.items()
        if type(value) is int or (type(value) is tuple and all(type(part) is int for part in value))
    }


def give(layer, other):
    """Put the other layer's tensors into a layer, one after another."""
    for name, value in other.named_parameters(recurse=False):
        layer._parameters[name] = value
        match_widths(layer)
    for name, value in other.named_buffers(recurse=False):
        layer._buffers[name] = value
        match_widths(layer)


@pytest.mark.parametrize(("before", "after"), CASES)
def test_layer_follows_its_tensors(before, after):
    layer, wanted = before(), after()
    give(layer, wanted)
    assert ints(layer) == ints(wanted) != ints(before())
    match_widths(layer)
    assert ints(layer) == ints(wanted)


@pytest.mark.parametrize(("before", "after"), CASES)
def test_layer_follows_a_form_that_holds_its_weight(before, after):
    layer, wanted = before(), after()
    give(layer, wanted)
    attached = before()
    for name, value in wanted.named_parameters(recurse=False):
        attach(attached, name, Dense(value.detach().clone()))
        match_widths(attached)
    for name, value in wanted.named_buffers(recurse=False):
        attached._buffers[name] = value
        match_widths(attached)
    assert ints(attached) == ints(wanted)


def test_recurrent_layer_runs_with_fewer_units():
    layer, wanted = nn.LSTM(5, 7, 2, batch_first=True), nn.LSTM(4, 6, 2, batch_first=True)
    give(layer, wanted)
    example = torch.randn(3, 2, 4)
    assert torch.equal(layer(example)[0], wanted(example)[0])


def test_other_modules_keep_what_they_say():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.in_channels = nn.Parameter(torch.ones(3, 2)), 7

    own = Own()
    match_widths(own)
    assert own.in_channels == 7


@pytest.mark.parametrize(
    ("groups", "before", "after", "wanted"),
    [(4, 8, 4, 4), (4, 8, 6, 3), (8, 8, 3, 3), (4, 8, 5, 4), (1, 8, 3, 1), (3, 8, 5, 3)],
)
def test_groups_stay_where_they_divide_and_go_whole_where_not(groups, before, after, wanted):
    assert groups_left(groups, before, after) == wanted
