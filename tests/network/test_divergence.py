"""Divergence against the mathematics, for answers of every shape."""

import copy

import pytest
import torch
from torch import nn

from cortado.network.divergence import answers, divergence


def test_maps_are_judged_pixel_by_pixel_over_their_classes():
    """The second axis of (N, classes, H, W) holds the classes, not the last."""
    torch.manual_seed(0)
    network, inputs = nn.Conv2d(2, 3, 3, padding=1).eval(), torch.randn(8, 2, 4, 6)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.bias += torch.tensor([0.5, 0.0, -0.3])
        plain, changed = (one(inputs).permute(0, 2, 3, 1).reshape(-1, 3).log_softmax(1) for one in (network, other))
    wanted = (plain.exp() * (plain - changed)).sum(1)
    torch.testing.assert_close(divergence(answers(network, inputs), answers(other, inputs)), wanted)


@pytest.mark.parametrize(
    ("shape", "rows"), [((5, 4), (5, 4)), ((5, 7, 4), (35, 4)), ((5, 4, 2, 3), (30, 4)), ((5,), (5, 1))]
)
def test_answers_are_rows_of_classes(shape, rows):
    assert answers(nn.Identity(), torch.randn(shape)).shape == rows


def test_single_numbers_count_by_half_their_squared_error():
    wanted, found = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]])
    assert divergence(wanted, found).tolist() == [0, 2]
