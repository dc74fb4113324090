"""Latent: floats behind a rounding; the network sees the rounded ones, the floats get the gradient."""

import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.forms.latent import Latent, LearnedStep, Rounding


def test_latent_shows_the_nearest_multiple_of_its_step():
    form = Latent(torch.tensor([0.12, -0.38, 0.0, 0.9]), LearnedStep(0.25))
    torch.testing.assert_close(form.dense().detach(), torch.tensor([0.0, -0.5, 0.0, 1.0]))


def test_gradient_passes_straight_to_the_floats():
    form = Latent(torch.randn(5), LearnedStep(0.25))
    slopes = torch.randn(5)
    (form.dense() * slopes).sum().backward()
    torch.testing.assert_close(form.values.grad, slopes)


def test_gradient_of_the_step_is_that_of_lsq():
    """Esser et al., 2020: d w / d s = round(v / s) - v / s, inside the range."""
    values, slopes = torch.randn(7), torch.randn(7)
    form = Latent(values, LearnedStep(0.3))
    (form.dense() * slopes).sum().backward()
    level = values / 0.3
    torch.testing.assert_close(form.rounding.step.grad, ((level.round() - level) * slopes).sum(), rtol=1e-4, atol=1e-5)


def test_step_never_reaches_zero():
    assert float(LearnedStep(0.0).size.detach()) > 0
    assert float(LearnedStep(-0.5).size.detach()) == 0.5


def test_latent_of_a_rounding_of_ones_own_says_that_it_must_settle():
    class Sign(Rounding):
        def forward(self, values):
            return values.sign()

    form = Latent(torch.randn(3), Sign())
    assert isinstance(form, nn.Module)
    with pytest.raises(BadValue, match="Sign is still in training. Settle it before it is saved"):
        form.parts()
