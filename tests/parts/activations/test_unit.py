"""Unit: DoReFa's activations against their formula, in training and finalized."""

import pytest
import torch

from cortado.errors import BadValue
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.unit import Unit

VALUES = torch.linspace(-0.7, 1.9, 400)


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_values_are_those_of_the_paper_and_stay_when_finalized(bits):
    """Zhou et al., 2016, equations 5 and 11: round((2^k - 1) clip(x, 0, 1)) / (2^k - 1)."""
    top = 2**bits - 1
    made = Unit(bits)(VALUES)
    torch.testing.assert_close(made, (VALUES.clamp(0, 1) * top).round() / top)
    finalized = Unit(bits).finalize()
    assert isinstance(finalized, Affine) and finalized.bits() == bits
    with torch.no_grad():
        torch.testing.assert_close(finalized(VALUES), made, rtol=0, atol=1e-6)


def test_gradient_passes_inside_and_nothing_learns():
    values = VALUES.clone().requires_grad_(True)
    quantizer = Unit(2)
    quantizer(values).sum().backward()
    assert torch.equal(values.grad, ((VALUES >= 0) & (VALUES <= 1)).float())
    assert not list(quantizer.parameters())


def test_gradient_is_rounded_first_where_asked_and_only_in_training():
    values = VALUES.clone().requires_grad_(True)
    slopes = torch.randn(400, generator=torch.Generator().manual_seed(0))
    (Unit(2, gradients=1)(values) * slopes).sum().backward()
    most = slopes.abs().max()
    assert {round(v, 5) for v in values.grad.abs().tolist()} == {0.0, round(float(most), 5)}
    values.grad = None
    (Unit(2, gradients=1).eval()(values) * slopes).sum().backward()
    inside = (VALUES >= 0) & (VALUES <= 1)
    torch.testing.assert_close(values.grad, slopes * inside)


@pytest.mark.parametrize("knobs", [(0, 0), (17, 0), (2, -1), (2, 17)])
def test_bits_out_of_range_are_refused(knobs):
    with pytest.raises(BadValue, match="bits must lie in 1..16 and gradients in 0..16"):
        Unit(*knobs)
