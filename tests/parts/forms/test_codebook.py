"""Codebook: shared values, and gradients that are sums over members."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cortado.errors import BadValue
from cortado.parts.forms.codebook import Codebook
from tests.parts.forms.strategies import SHAPES, palette_of, values_of


@given(st.sampled_from(SHAPES), st.sampled_from([1, 2, 7, 256]), st.integers(0, 99))
def test_gradient_of_a_value_is_the_sum_over_its_members(shape, count, seed):
    """Han, Mao, Dally, 2016: dL/dC_k = sum of dL/dW_ij over the members of cluster k, here by a plain loop."""
    form = palette_of(torch.zeros(shape), count, seed)
    slopes = values_of(shape, seed + 1)
    (form.dense() * slopes).sum().backward()
    wanted = [0.0] * count
    for code, slope in zip(form.codes.flatten().tolist(), slopes.flatten().tolist(), strict=True):
        wanted[code] += slope
    torch.testing.assert_close(form.codebook.grad, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def test_codebook_looks_its_values_up():
    form = Codebook(torch.tensor([0.5, -1.0]), torch.tensor([[0, 1], [1, 1]]))
    assert torch.equal(form.dense(), torch.tensor([[0.5, -1.0], [-1.0, -1.0]]))


def test_stored_ranks_are_small_for_small_values():
    form = Codebook(torch.tensor([0.5, -1.0, 0.1, -0.2]), torch.tensor([0, 1, 2, 3]))
    assert form.parts()["codes"].tolist() == [1, -2, 0, -1]
    assert torch.equal(form.parts()["codebook"], torch.tensor([-1.0, -0.2, 0.1, 0.5]))


def test_codebook_of_equal_values_comes_back():
    form = Codebook(torch.tensor([0.5, 0.5, -0.0, 0.0]), torch.tensor([0, 1, 2, 3]))
    again = Codebook.from_parts(form.shape, form.spec(), form.parts())
    assert torch.equal(again.dense().view(torch.int32), form.dense().view(torch.int32))


@pytest.mark.parametrize("count", [0, 257])
def test_book_of_a_wrong_length_is_refused(count):
    with pytest.raises(BadValue, match=f"a codebook holds 1 to 256 values, got {count}"):
        Codebook(torch.zeros(count), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("codes", [[-1, 0], [0, 2]])
def test_codes_outside_the_book_are_refused(codes):
    with pytest.raises(BadValue, match=r"codes must lie in 0\.\.1, got"):
        Codebook(torch.zeros(2), torch.tensor(codes))


def test_bits_are_those_of_codes_and_book():
    assert Codebook(torch.zeros(5), torch.zeros(10, dtype=torch.long)).bits() == 10 * 3 + 5 * 32
    assert Codebook(torch.zeros(1), torch.zeros(10, dtype=torch.long)).bits() == 10 * 1 + 1 * 32
