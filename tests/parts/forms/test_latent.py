"""Latent forms: floats behind a rounding; the network sees the rounded ones, the floats get a gradient.  See each paper."""

import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.file.artifact import encode
from cortado.parts.forms.attach import attach
from cortado.parts.forms.binary import Binary
from cortado.parts.forms.clipped import Clipped
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.squashed import Squashed
from cortado.parts.forms.ternary import Ternary


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(form, slopes):
    (form.dense() * slopes).sum().backward()
    return {name: value.grad for name, value in form.named_parameters()}


def test_learned_step_shows_the_nearest_multiple():
    form = LearnedStep(torch.tensor([0.12, -0.38, 0.0, 0.9]), 0.25)
    torch.testing.assert_close(form.dense().detach(), torch.tensor([0.0, -0.5, 0.0, 1.0]))


def test_gradient_of_an_endless_step_passes_and_is_that_of_lsq():
    """Esser et al., 2020: d w / d s = round(v / s) - v / s, inside the range."""
    values, slopes = drawn(7), drawn(7, seed=1)
    found = gradients(LearnedStep(values, 0.3), slopes)
    level = values / 0.3
    torch.testing.assert_close(found["values"], slopes)
    torch.testing.assert_close(found["step"], ((level.round() - level) * slopes).sum().reshape(1), rtol=1e-4, atol=1e-5)


def test_gradient_of_a_learned_step_follows_the_paper():
    """Equations 3 to 5: -Q_N below, Q_P above, the rest inside, times 1 / sqrt(weights x Q_P); no gradient outside."""
    values, slopes = drawn(4, 9) * 2, drawn(4, 9, seed=1)
    found = gradients(LearnedStep(values, 0.5, bits=3), slopes)
    level = values / 0.5
    inside = (level > -4) & (level < 3)
    slope = torch.where(inside, level.round() - level, level.round().clamp(-4, 3))
    torch.testing.assert_close(found["values"], slopes * inside)
    wanted = (slope * slopes).sum().reshape(1) / (36 * 3) ** 0.5
    torch.testing.assert_close(found["step"], wanted, rtol=1e-4, atol=1e-5)


def test_steps_of_channels_learn_each_from_its_own():
    values = drawn(3, 8)
    form = LearnedStep.of(values, 4, "channel")
    found = gradients(form, torch.tensor([[1.0], [0.0], [0.0]]).expand(3, 8))
    assert form.step.shape == (3,) and found["step"][1] == 0 == found["step"][2] and found["step"][0] != 0


def test_step_never_reaches_zero_and_may_be_shared():
    assert float(LearnedStep(torch.ones(2), 0.0).size.detach()) > 0
    assert float(LearnedStep(torch.ones(2), -0.5).size.detach()) == 0.5
    step = nn.Parameter(torch.ones(1))
    assert LearnedStep(torch.ones(2), step).step is LearnedStep(torch.ones(3), step).step


@pytest.mark.parametrize("make", [
    lambda: LearnedStep(torch.ones(2, 3), 0.1, bits=1), lambda: LearnedStep(torch.ones(2, 3), torch.ones(5)),
    lambda: Binary(torch.ones(2), "row"), lambda: Ternary(torch.ones(2), 1.0), lambda: Squashed(torch.ones(2), 0),
    lambda: Clipped(torch.ones(2), 1, 0.5), lambda: Clipped(torch.ones(2), 3, 1.5),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(make):
    with pytest.raises(BadValue, match="got"):
        make()


def test_scale_of_signs_has_the_least_squared_error():
    """Rastegari et al., 2016: alpha = mean |w| is the best scale for sign(w), channel by channel."""
    values = drawn(4, 30)
    form = Binary(values, "channel")
    error = (form.dense() - values).square().sum(1)
    for factor in (0.9, 1.1):
        assert bool((error < (form.dense() * factor - values).square().sum(1)).all())


def test_gradient_of_scaled_signs_is_the_papers():
    """dC/dW_i = dC/dW~_i x (1 / n + alpha inside -1..1), summed over the channel for the part of the scale."""
    values, slopes = drawn(2, 5), drawn(2, 5, seed=1)
    found = gradients(Binary(values, "channel"), slopes)["values"]
    signs, alpha = values.sign(), values.abs().mean(1, keepdim=True)
    wanted = signs / 5 * (slopes * signs).sum(1, keepdim=True) + slopes * alpha * (values.abs() <= 1)
    torch.testing.assert_close(found, wanted)


def test_stochastic_signs_are_drawn_while_training_with_the_right_odds():
    form = Binary(torch.full((20_000,), 0.4), "none", stochastic=True)
    torch.manual_seed(0)
    assert abs(float((form.dense() > 0).float().mean()) - 0.7) < 0.02
    assert torch.equal(form.eval().dense(), torch.ones(20_000))


def test_values_of_signs_stay_in_bounds_after_a_step():
    form = Binary(torch.tensor([1.7, -3.0, 0.2]), "none")
    form.after_step()
    assert torch.equal(form.values.detach(), torch.tensor([1.0, -1.0, 0.2]))


def test_ternary_gradients_are_the_papers():
    """Zhu et al., 2017, equations 7 and 8; the scales' divided by the root of the number of weights."""
    values = torch.tensor([0.9, -0.8, 0.01, 0.5, -0.02])
    slopes = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    found = gradients(Ternary(values, 0.05, torch.tensor([0.6, 0.7])), slopes)
    torch.testing.assert_close(found["scales"], torch.tensor([1.0 + 4.0, -2.0]) / 5**0.5)
    torch.testing.assert_close(found["values"], torch.tensor([0.6, 1.4, 3.0, 2.4, 5.0]))


def test_ternary_is_finalized_into_three_shared_values():
    form = Ternary(drawn(6, 7), 0.2)
    finalized = form.finalize()
    assert isinstance(finalized, Codebook) and len(finalized.codebook) == 3
    torch.testing.assert_close(finalized.dense(), form.dense(), rtol=2**-8, atol=0)


def test_squashed_levels_are_those_of_dorefa():
    """Zhou et al., 2016: 2 q(tanh w / (2 max |tanh w|) + 1/2) - 1 with q(r) = round((2^k - 1) r) / (2^k - 1)."""
    values = drawn(50)
    share = values.tanh() / (2 * values.tanh().abs().max()) + 0.5
    for bits in (2, 3, 4):
        top = 2**bits - 1
        torch.testing.assert_close(Squashed(values, bits).dense().detach(), 2 * (share * top).round() / top - 1)
    torch.testing.assert_close(Squashed(values, 1).dense().detach(), values.sign() * values.abs().mean())


def test_clipped_zeros_the_share_and_gives_means():
    values = drawn(1000)
    form = Clipped(values, 3, 0.4)
    seen = form.dense().detach()
    assert abs(float((seen == 0).float().mean()) - 0.4) < 0.01
    levels = seen.unique()
    assert len(levels) <= 8
    for level in levels[levels != 0]:
        torch.testing.assert_close(values[seen == level].mean(), level)
    assert bool((seen[seen != 0] * values[seen != 0] > 0).all())


def test_what_was_clipped_comes_back_when_it_grows():
    """Pruning by CLIP-Q is not for good: the floats go on behind it."""
    form = Clipped(torch.tensor([0.1, 0.5, 0.9, -0.1, -0.5, -0.9]), 3, 0.4)
    assert form.dense()[0] == 0
    with torch.no_grad():
        form.values[0] = 0.8
    assert form.dense()[0] > 0


def test_file_stores_a_sign_in_a_bit():
    original = nn.Linear(128, 64, bias=False)
    small = nn.Linear(128, 64, bias=False)
    attach(small, "weight", Binary(drawn(64, 128), "tensor").finalize())
    assert len(encode(small, original)) <= 64 * 128 / 8 * 1.02 + 20


def test_survivors_of_a_mask_can_be_latent():
    mask = torch.tensor([[True, False, True], [False, True, True]])
    form = Masked(mask, LearnedStep(drawn(4), 0.2, bits=3))
    assert bool((form.dense()[~mask] == 0).all())
    assert type(form.finalize().kept).__name__ == "Quantized"


def test_second_latent_form_starts_from_the_floats():
    values = torch.tensor([[0.3, -0.2], [0.05, -0.9]])
    drawn = Binary(values, "none", stochastic=True).eval()
    fixed = drawn.map_values(lambda given: Binary(given, "none"))
    torch.testing.assert_close(fixed.values.detach(), values)
    torch.testing.assert_close(drawn.map_values(Dense).dense(), torch.tensor([[1.0, -1.0], [1.0, -1.0]]))


def test_codes_of_eight_bits_are_even_on_both_sides():
    """Runtimes hold -127 to 127: a code of -128 would be clipped there, or its layer stay in floats."""
    form = LearnedStep(torch.linspace(-2.0, 2.0, 999), 0.01, 8)
    assert int(form.levels().min()) == -127 and int(form.levels().max()) == 127
    assert int(LearnedStep(torch.linspace(-2.0, 2.0, 999), 0.01, 4).levels().min()) == -8
