"""Gradients in few bits: the levels, the mean and the noise of the paper, and nothing left afterwards."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.file.artifact import decode, encode
from cortado.network.finalize import finalize, in_training
from cortado.parts.activations.gradients import Gradients, stochastic
from cortado.parts.activations.quantizer import put_quantizer, quantizer_at, sites

SLOPES = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))


def came_back(activation, slopes=SLOPES):
    values = torch.ones_like(slopes, requires_grad=True)
    made = activation(values)
    assert torch.equal(made, values), "values pass as they are"
    (made * slopes).sum().backward()
    return values.grad


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_each_sample_has_even_levels_up_to_its_largest(bits):
    """Zhou et al., 2016, equation 12: 2 m (j / (2^k - 1) - 1/2), for j = 0 .. 2^k - 1."""
    found, most = came_back(Gradients(bits)), SLOPES.abs().amax(1, keepdim=True)
    place = (found / (2 * most) + 0.5) * (2**bits - 1)
    torch.testing.assert_close(place, place.round(), rtol=0, atol=1e-4)
    step = 2 * most / (2**bits - 1)
    assert bool(((found - SLOPES).abs() <= step * 1.0001).all()), "at most the next level on either side"
    assert bool((found.abs() <= most * 1.0001).all())


def test_mean_over_the_noise_is_the_gradient():
    torch.manual_seed(0)
    mean = torch.stack([stochastic(SLOPES, 2) for _ in range(4000)]).mean(0)
    # One draw deviates by at most half a step of 2 m / 3, a mean of 4000 by a hundredth of m.
    assert float(((mean - SLOPES).abs() / SLOPES.abs().amax(1, keepdim=True)).max()) < 0.03


@pytest.mark.parametrize("slope", [0.0, -1 / 512, 1 / 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_gradients_beside_a_large_one_keep_their_mean(dtype, slope):
    """Nearly all gradients of a layer are small beside its largest: rounded to 64 levels they live by chance alone."""
    torch.manual_seed(0)
    slopes = torch.full((1, 4001), slope, dtype=dtype)
    slopes[0, 0] = 1.0
    drawn = torch.stack([stochastic(slopes, 6)[0, 1:].double() for _ in range(50)])
    # A step is 2/63; the mean of 200,000 draws deviates by some 3e-5.
    assert abs(float(drawn.mean()) - slope) < 2e-4


def test_samples_without_a_gradient_and_single_numbers_pass():
    assert torch.equal(stochastic(torch.zeros(2, 3), 4), torch.zeros(2, 3))
    torch.testing.assert_close(stochastic(torch.tensor(-0.3), 1), torch.tensor(-0.3))


def test_gradients_are_exact_outside_training():
    assert torch.equal(came_back(Gradients(1).eval()), SLOPES)


def test_file_keeps_it_and_settling_leaves_nothing():
    original = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    small = copy.deepcopy(original)
    put_quantizer(small[0], "output", Gradients(6))
    again = decode(encode(small, original), original)
    assert isinstance(quantizer_at(again[0], "output"), Gradients) and quantizer_at(again[0], "output").width == 6
    assert in_training(again)
    finalize(again)
    assert not in_training(again) and not sites(again) and not again[0]._forward_hooks
    assert encode(again, original) == encode(original, original)


def test_bits_out_of_range_are_refused():
    for bits in (0, 17):
        with pytest.raises(BadValue, match="bits must lie in 1..16"):
            Gradients(bits)
