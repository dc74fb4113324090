"""Quantized: an even grid, whose error is at most half a step, with zero on it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cortado.errors import BadValue
from cortado.parts.forms.quantized import Quantized, rows_by_scale
from tests.parts.forms.strategies import SHAPES, values_of

layouts = st.sampled_from([("tensor", 0), ("channel", 0), ("group", 1), ("group", 3), ("group", 64)])
MATRICES = tuple(shape for shape in SHAPES if len(shape) > 1)


@given(
    st.sampled_from(MATRICES),
    layouts,
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 999),
    st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_error_is_at_most_half_a_step(shape, layout, bits, symmetric, seed, size):
    values = values_of(shape, seed) * size
    form = Quantized.of(values, bits, *layout, symmetric)
    if symmetric and bits == 1:
        # Two levels cannot span a range: they stand at plus and minus the mean magnitude of what a scale serves.
        assert torch.equal(torch.sign(form.dense()), torch.where(values < 0, -1.0, 1.0) * (form.dense() != 0))
        return
    half = form.spread(form.scale.detach()) / 2
    assert bool(((form.dense() - values).abs() <= half * (1 + 1e-5)).all())


@given(
    st.sampled_from(MATRICES),
    layouts,
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from(["range", "mse"]),
    st.integers(0, 99),
)
def test_codes_stay_in_their_range_and_zero_is_on_the_grid(shape, layout, bits, symmetric, clip, seed):
    values = values_of(shape, seed)
    values.view(-1)[0] = 0.0
    form = Quantized.of(values, bits, *layout, symmetric, clip)
    codes = form.codes.int()
    if symmetric and bits == 1:
        assert set(codes.flatten().tolist()) <= {-1, 1}
        return
    low, high = (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    assert low <= int(codes.min()) and int(codes.max()) <= high
    assert bool((form.dense()[values == 0] == 0).all())


@given(st.sampled_from(MATRICES), layouts, st.integers(2, 8), st.booleans(), st.integers(0, 99))
def test_mse_is_never_worse_than_the_full_range(shape, layout, bits, symmetric, seed):
    values = values_of(shape, seed) ** 3
    errors = [
        ((Quantized.of(values, bits, *layout, symmetric, clip).dense().detach() - values) ** 2).sum()
        for clip in ("mse", "range")
    ]
    assert float(errors[0]) <= float(errors[1]) * (1 + 1e-5)


@given(st.sampled_from(MATRICES), st.integers(2, 8), st.booleans(), st.integers(0, 99))
def test_rounding_what_is_on_the_grid_changes_nothing(shape, bits, symmetric, seed):
    once = Quantized.of(values_of(shape, seed), bits, "tensor", 0, symmetric).dense().detach()
    twice = Quantized.of(once, bits, "tensor", 0, symmetric).dense().detach()
    torch.testing.assert_close(once, twice)


def test_scales_follow_tensor_channel_and_group():
    values = torch.tensor([[1.0, 2.0, 30.0], [4.0, 500.0, 6.0]])
    assert (Quantized.of(values, 8).scale * 127).tolist() == pytest.approx([500.0])
    assert (Quantized.of(values, 8, "channel").scale * 127).tolist() == pytest.approx([30.0, 500.0])
    assert (Quantized.of(values, 8, "group", 2).scale * 127).tolist() == pytest.approx([2.0, 30.0, 500.0, 6.0])


def test_short_last_group_does_not_widen_its_range():
    rows = rows_by_scale(torch.tensor([[1.0, 2.0, 3.0]]), "group", 2)
    assert rows.tolist() == [[1.0, 2.0], [3.0, 3.0]]


def test_gradient_of_a_scale_is_the_sum_of_codes_times_slopes():
    form = Quantized.of(values_of((3, 4), 1), 4, "channel", symmetric=False)
    slopes = values_of((3, 4), 2)
    (form.dense() * slopes).sum().backward()
    wanted = ((form.codes.float() - form.zero.view(3, 1)) * slopes).sum(1)
    torch.testing.assert_close(form.scale.grad, wanted)


@given(st.sampled_from([0.0, 3.0, -3.0]), st.integers(1, 8), st.booleans(), layouts)
def test_constant_weights_are_rounded(value, bits, symmetric, layout):
    values = torch.full((2, 3), value)
    form = Quantized.of(values, bits, *layout, symmetric)
    torch.testing.assert_close(form.dense().detach(), values, rtol=1e-5, atol=0.0)


def test_survivors_of_nothing_are_rounded_to_nothing():
    assert Quantized.of(torch.zeros(0), 4).dense().shape == (0,)


@pytest.mark.parametrize(("layout", "group"), [("row", 0), ("group", 0), ("group", -1)])
def test_layout_that_does_not_exist_is_refused(layout, group):
    with pytest.raises(BadValue, match="layout must be tensor, channel or group"):
        Quantized.of(torch.zeros(2, 2), 4, layout, group)


def test_wrong_number_of_scales_is_refused():
    with pytest.raises(BadValue, match="needs 2 scales, got 3"):
        Quantized(torch.zeros(2, 2, dtype=torch.int8), torch.ones(3), layout="channel")


def test_an_outlier_does_not_take_the_levels_of_all_others():
    values = torch.cat([torch.randn(4607, generator=torch.Generator().manual_seed(0)), torch.tensor([12.0])])
    with torch.no_grad():
        error = float((Quantized.of(values, 2, clip="mse").dense() - values).square().mean())
    steps = torch.linspace(0.3, 12, 400)
    best = min(float(((values / step).round().clamp(-1, 1) * step - values).square().mean()) for step in steps)
    assert error < 1.2 * best


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("layout", "group"), [("tensor", 0), ("channel", 0), ("group", 4)])
def test_the_gradient_of_scales_keeps_codes_as_integers(layout, group, symmetric):
    torch.manual_seed(0)
    form = Quantized.of(torch.randn(6, 10), 4, layout, group, symmetric)
    slopes, kept = torch.randn(6, 10), []

    def note(tensor):
        kept.append(tensor.dtype)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        dense = form.dense()
    (dense * slopes).sum().backward()
    lattice = form.lattice()
    zero = 0 if lattice.zero is None else lattice.spread(lattice.zero)
    plain = torch.nn.Parameter(form.scale.detach().clone())
    ((lattice.codes.float() - zero) * lattice.spread(plain) * slopes).sum().backward()
    assert torch.allclose(form.scale.grad, plain.grad, atol=1e-5)
    assert kept and not any(dtype.is_floating_point for dtype in kept)
