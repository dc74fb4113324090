"""Ranges against mathematics, and what cannot be measured is said."""

import numpy as np
import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork, BadTask
from cortado.network.statistics.ranges import BINS, RANGES, ObservedRange, check_range, measure_ranges
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import put_quantizer
from cortado.task.task import Data


def reach_of(values: torch.Tensor) -> ObservedRange:
    found = ObservedRange()
    found.stretch(values)
    found.count(values)
    return found


def draws(count: int = 200_000) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def test_full_is_all_that_was_seen():
    values = draws()
    assert RANGES["full"](reach_of(values), 8) == (float(values.min()), float(values.max()))


def test_percentile_leaves_one_in_ten_thousand_at_either_end():
    low, high = RANGES["percentile"](reach_of(draws()), 8)
    assert abs(low + 3.719) < 0.1 and abs(high - 3.719) < 0.1
    assert RANGES["percentile"](reach_of(draws().abs()), 8)[0] >= 0


def test_average_follows_batches_slowly():
    found = ObservedRange()
    for top in [1.0] * 20 + [100.0]:
        found.stretch(torch.tensor([0.0, top]))
    assert found.high == 100 and abs(found.mean_high - 10.9) < 1e-6


def error_on(values: torch.Tensor, low: float, high: float, bits: int) -> float:
    with torch.no_grad():
        return float((Affine.spanning(low, high, bits)(values) - values).square().mean())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mse_has_less_error_than_any_other_end_tried(bits):
    """The best clipping of a normal activation grows with the bits: 4 bits some 2.6 deviations (Banner et al., 2019)."""
    values = draws()
    low, high = RANGES["mse"](reach_of(values), bits)
    mine = error_on(values, low, high, bits)
    ends = [float(values.abs().max()) * share for share in np.linspace(0.2, 1.0, 30)]
    assert mine <= min(error_on(values, -end, end, bits) for end in ends) * 1.05
    if bits == 4:
        assert 2.2 < high < 3.0


def test_divergence_cuts_off_outliers_and_little_else():
    values = torch.cat([draws().abs(), torch.tensor([60.0])])
    low, high = RANGES["kl"](reach_of(values), 8)
    assert low == 0 and 3 < high < 20
    spread = torch.rand(200_000, generator=torch.Generator().manual_seed(1))
    assert RANGES["kl"](reach_of(spread), 8)[1] > 0.95, "an even spread has no outliers"


def test_zeros_do_not_pull_the_divergence_in():
    half = torch.where(torch.arange(200_000) % 2 == 0, draws().abs(), torch.zeros(()))
    assert RANGES["kl"](reach_of(half), 8)[1] > 3


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()


def data(count: int, seed: int = 0) -> Data:
    drawn = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return Data(drawn, torch.zeros(count, dtype=torch.long))


GROUPS = [[("0", "input")], [("1", "output"), ("2", "output")]]


def test_activations_are_measured_over_all_samples_in_parts():
    network, given = net(), data(100)
    first, second = measure_ranges(network, GROUPS, given, 100, 7)
    assert (first.low, first.high) == (float(given.inputs.min()), float(given.inputs.max()))
    with torch.no_grad():
        hidden = network[:2](given.inputs)
        both = torch.cat([hidden.flatten(), network(given.inputs).flatten()])
    assert second.high == pytest.approx(float(both.max())) and second.low == pytest.approx(float(both.min()))
    assert second.counts.sum() == both.numel() and len(second.counts) == BINS


def test_no_more_samples_are_looked_at_than_asked_for():
    (reach,) = measure_ranges(net(), GROUPS[:1], data(100), 10, 4)
    assert reach.counts.sum() == 12 * 4, "three batches of four"


def test_what_is_rounded_is_measured_as_it_was():
    network = net()
    before = measure_ranges(network, GROUPS, data(50), 50, 50)
    put_quantizer(network[0], "input", Affine(1.0, 2, 2))
    after = measure_ranges(network, GROUPS, data(50), 50, 50)
    assert [(r.low, r.high) for r in before] == [(r.low, r.high) for r in after]


def test_only_what_is_above_zero_counts_where_asked():
    (reach,) = measure_ranges(net(), [[("0", "output")]], data(50), 50, 50, [0.0])
    assert reach.low == 0 and reach.counts.sum() == 150


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused(bad):
    given = data(20)
    given.inputs[3, 1] = bad
    with pytest.raises(BadTask, match="the input of 0 has NaN or infinite values on the calibration data"):
        measure_ranges(net(), GROUPS, given, 20, 20)


def test_activations_that_float32_cannot_span_are_refused():
    given = data(20)
    given.inputs[3, 1], given.inputs[4, 1] = 3e38, -3e38
    with pytest.raises(BadTask, match=r"the input of 0 ranges from -3e\+38 to 3e\+38 on the calibration data"):
        measure_ranges(net(), GROUPS[:1], given, 20, 20)


@pytest.mark.parametrize("way", RANGES)
def test_ends_of_what_is_always_the_same_are_there(way):
    for value in (0.0, 2.0, -2.0):
        low, high = RANGES[way](reach_of(torch.full((50,), value)), 8)
        assert low <= high and min(low, 0) <= value <= max(high, 0)


def test_steps_between_the_ends_leave_one_value_in_a_thousand_out():
    spread = torch.linspace(0, 1, 100_001)
    assert reach_of(spread).steps(0.01) == pytest.approx(99.9, abs=0.2)
    assert reach_of(torch.cat([spread, torch.tensor([1e6])])).steps(0.01) == 0


def test_layer_that_never_ran_is_named():
    network = net()
    network.add_module("idle", nn.Identity())
    network.forward = lambda quantizer: network[1](network[0](quantizer))
    with pytest.raises(BadNetwork, match="nothing passed the input of idle"):
        measure_ranges(network, [[("idle", "input")]], data(20), 20, 20)


def test_what_a_leaky_activation_makes_small_may_be_clipped_more():
    values = draws()
    reach, leaky = reach_of(values), reach_of(values)
    leaky.below = 0.1

    def error(ends):
        step = (ends[1] - ends[0]) / 255
        rounded = ((values - ends[0]) / step).round().clamp(0, 255) * step + ends[0]
        return float(
            (torch.nn.functional.leaky_relu(rounded, 0.1) - torch.nn.functional.leaky_relu(values, 0.1)).square().mean()
        )

    ends, better = RANGES["mse"](reach, 8), RANGES["mse"](leaky, 8)
    assert ends[0] < better[0] < 0 and error(better) < 0.9 * error(ends)


def test_nan_in_one_batch_of_several_is_not_forgotten():
    found = ObservedRange()
    for part in (torch.rand(9), torch.tensor([1.0, float("nan")]), torch.rand(9)):
        found.stretch(part)
    with pytest.raises(BadTask, match="NaN or infinite"):
        check_range(found, ("layer", "input"))


@pytest.mark.parametrize("bits", [2, 4])
def test_least_error_draws_the_ends_in_as_far_as_an_outlier_asks(bits):
    values = torch.cat([draws(20_000).relu(), torch.tensor([40.0])])
    low, high = RANGES["mse"](reach_of(values), bits)
    best = min(error_on(values, 0.0, float(end), bits) for end in np.geomspace(0.5, 40, 200))
    assert error_on(values, low, high, bits) < 1.25 * best
