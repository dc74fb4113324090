"""The estimate of bits agrees with the entropy of what it describes."""

import math

import torch

from cortado.methods.prune.bits import SIGN_BITS, as_planes, bits_of_levels, nonzero_cost


def test_cost_of_a_nonzero_is_its_log_odds():
    generator = torch.Generator().manual_seed(0)
    nonzero = torch.rand(400, 400, 1, generator=generator) < 0.1
    price = nonzero_cost(nonzero) - SIGN_BITS
    assert abs(float(price.mean()) - math.log2(9)) < 0.05


def test_empty_rows_and_columns_are_dearer():
    nonzero = torch.zeros(20, 20, 1, dtype=torch.bool)
    nonzero[:10, :10] = torch.rand(10, 10, 1, generator=torch.Generator().manual_seed(1)) < 0.5
    price = nonzero_cost(nonzero)[:, :, 0]
    assert price[:10, :10].mean() < price[:10, 10:].mean() < price[10:, 10:].mean()
    assert price[:10, :10].mean() < price[10:, :10].mean()


def test_price_is_finite_where_everything_or_nothing_is_zero():
    for filled in (True, False):
        price = nonzero_cost(torch.full((3, 4, 9), filled))
        assert bool(torch.isfinite(price).all()) and bool((price > 0).all())


def test_bits_grow_in_a_line_up_to_a_step_and_with_the_log_beyond():
    price = torch.tensor(5.0)
    assert float(bits_of_levels(torch.tensor([0.0]), price)) == 0
    assert float(bits_of_levels(torch.tensor([0.5]), price)) == 2.5
    assert float(bits_of_levels(torch.tensor([-1.0]), price)) == 5
    assert float(bits_of_levels(torch.tensor([4.0]), price)) > float(bits_of_levels(torch.tensor([2.0]), price)) > 5


def test_planes_have_rows_columns_and_taps():
    assert as_planes(torch.zeros(5)).shape == (1, 5, 1)
    assert as_planes(torch.zeros(4, 3)).shape == (4, 3, 1)
    assert as_planes(torch.zeros(4, 3, 2, 5)).shape == (4, 3, 10)
