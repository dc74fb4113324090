"""Divergence against the mathematics, for answers of every shape."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadTask
from cortado.network.compare.divergence import Divergence, divergence, divergence_for, divergence_of, output_rows
from cortado.task.task import Data, Task


def test_maps_are_judged_pixel_by_pixel_over_their_classes():
    """The second axis of (N, classes, H, W) holds the classes, not the last."""
    torch.manual_seed(0)
    network, inputs = nn.Conv2d(2, 3, 3, padding=1).eval(), torch.randn(8, 2, 4, 6)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.bias += torch.tensor([0.5, 0.0, -0.3])
        original, changed = (one(inputs).permute(0, 2, 3, 1).reshape(-1, 3).log_softmax(1) for one in (network, other))
    wanted = (original.exp() * (original - changed)).sum(1)
    torch.testing.assert_close(divergence(output_rows(network, inputs), output_rows(other, inputs)), wanted)


@pytest.mark.parametrize(
    ("shape", "rows"), [((5, 4), (5, 4)), ((5, 7, 4), (35, 4)), ((5, 4, 2, 3), (30, 4)), ((5,), (5, 1))]
)
def test_answers_are_rows_of_classes(shape, rows):
    assert output_rows(nn.Identity(), torch.randn(shape)).shape == rows


def test_single_numbers_count_by_half_their_squared_error():
    wanted, found = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]])
    assert divergence(wanted, found).tolist() == [0, 2]


def test_numbers_count_by_the_share_of_variance_that_is_lost():
    """Whatever unit they are in, and however many there are."""
    torch.manual_seed(0)
    wanted = torch.randn(4000, 5) * torch.tensor([1.0, 2, 3, 0, 1]) + 7
    found = wanted + 0.3 * (wanted - wanted.mean(0))
    for unit in (1.0, 1000.0):
        nats = divergence_of(wanted * unit, "numbers")
        assert float(nats.between(wanted * unit, found * unit).mean()) == pytest.approx(0.5 * 0.09, rel=1e-4)
    assert divergence_of(wanted) == Divergence() and divergence_of(wanted[:, :1]).variance == pytest.approx(
        float(wanted[:, 0].var(correction=0)), rel=1e-5
    )
    assert divergence_of(torch.ones(3, 2), "numbers").variance == 1


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_slope_squared_is_the_hessian_of_the_divergence(kind):
    """The mean of v v^T over random signs, at temperature 1, row by row."""
    torch.manual_seed(0)
    wanted, generator = torch.randn(3, 4, dtype=torch.float64), torch.Generator().manual_seed(0)
    nats = divergence_of(wanted, kind)
    mean = torch.zeros(12, 12, dtype=torch.float64)
    for _ in range(4000):
        rows = wanted.clone().requires_grad_()
        (v,) = torch.autograd.grad(nats.slope(rows, 1.0, generator), rows)
        mean += torch.outer(v.flatten(), v.flatten()) / 4000
    exact = torch.autograd.functional.hessian(lambda rows: nats.between(wanted, rows).sum(), wanted)
    torch.testing.assert_close(mean, exact.view(12, 12), rtol=0, atol=0.03)


def test_a_task_says_what_its_answers_are():
    inputs = torch.randn(20, 3)
    data = Data(inputs, torch.zeros(20))
    assert divergence_for(nn.Identity(), Task(data, data, data)) == Divergence()
    numbers = divergence_for(nn.Identity(), Task(data, data, data, answers="numbers"))
    assert numbers.variance == pytest.approx(float(inputs.var(0, correction=0).mean()), rel=1e-5)
    with pytest.raises(BadTask, match="answers must be one of classes, numbers, got 'words'"):
        Task(data, data, data, answers="words")
