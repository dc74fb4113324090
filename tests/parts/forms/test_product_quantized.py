"""Products: rows out of shared vectors, against loops; what stays shared when channels go."""

import pytest
import torch

from cortado.errors import BadValue
from cortado.parts.forms.product_quantized import ProductQuantized


def drawn(shape, values, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.Size(shape[1:]).numel()
    positions = -(-inputs // width)
    codebooks = torch.randn(positions, values, width, generator=generator)
    return ProductQuantized(codebooks, torch.randint(0, values, (shape[0], positions), generator=generator), shape)


@pytest.mark.parametrize(("shape", "width"), [((5, 8), 4), ((5, 7), 3), ((3, 2, 3, 3), 4), ((4, 1), 1)])
def test_every_row_is_put_together_from_its_vectors(shape, width):
    form = drawn(shape, 3, width)
    rows = form.dense().detach().reshape(shape[0], -1)
    for row in range(rows.shape[0]):
        for column in range(rows.shape[1]):
            vector = form.codebooks[column // width, int(form.codes[row, column // width])]
            assert rows[row, column] == vector[column % width]


def test_gradient_of_a_vector_is_the_sum_over_the_rows_that_use_it():
    form, slopes = drawn((6, 4), 2, 2), torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    (form.dense() * slopes).sum().backward()
    for position in range(2):
        for value in range(2):
            members = form.codes[:, position] == value
            wanted = slopes[members][:, 2 * position : 2 * position + 2].sum(0)
            torch.testing.assert_close(form.codebooks.grad[position, value], wanted)


def test_whole_channels_that_go_leave_vectors_whole():
    form = drawn((6, 4, 3, 3), 3, 9)
    narrowed = form.narrow(1, torch.tensor([3, 0]))
    assert narrowed.spec() == {"values": 3, "width": 9} and narrowed.codebooks.shape == (2, 3, 9)
    assert drawn((6, 4, 3, 3), 3, 18).narrow(1, torch.tensor([1, 2])).spec()["width"] == 9


def test_vectors_that_no_row_uses_any_more_go():
    form = drawn((40, 8), 16, 4)
    narrowed = form.narrow(0, torch.arange(2))
    assert narrowed.codebooks.shape[1] <= 2 and torch.equal(narrowed.dense(), form.dense()[:2])


def test_bits_are_those_of_codes_and_books():
    assert drawn((64, 8), 16, 4).bits() == 64 * 2 * 4 + 2 * 16 * 4 * 32


@pytest.mark.parametrize(
    ("codebooks", "codes", "shape", "says"),
    [
        ((2, 3, 4), torch.zeros(5, 2), (5, 9), "needs 36 floats in its codebooks, 15 codes, got 24 and 10"),
        ((2, 3, 4), torch.full((5, 2), 3), (5, 8), "codes must lie in 0..2, got 3..3"),
        ((1, 3, 9), torch.zeros(5, 1), (5, 8), "width in 1..8"),
    ],
)
def test_what_does_not_fit_is_refused(codebooks, codes, shape, says):
    with pytest.raises(BadValue, match=says):
        ProductQuantized(torch.zeros(codebooks), codes.long(), shape)


def test_rows_cut_below_the_width_of_a_sub_vector_are_stored():
    """One column is left of sub-vectors of two: a file has to read it again."""
    form = ProductQuantized(torch.randn(2, 3, 2), torch.tensor([[0, 2], [1, 0]]), torch.Size([2, 4]))
    cut = form.narrow(1, torch.tensor([3]))
    again = ProductQuantized.from_parts(cut.shape, cut.spec(), cut.parts())
    assert ProductQuantized.sizes(cut.shape, cut.spec()) == {name: part.numel() for name, part in cut.parts().items()}
    assert torch.equal(again.dense(), form.dense()[:, 3:])
