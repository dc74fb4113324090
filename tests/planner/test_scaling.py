"""Compound scaling: candidates near twice the cost, equal time for each by a clock of the test, and phi within the limit."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from cortado.errors import BadRecipe, BadValue
from cortado.planner.scaling import Scaled, Scaling, scale_table
from cortado.task.task import Data, Task
from cortado.training.training import Training


class Shaped(nn.Module):
    """Convolutions on pictures of some resolution."""

    def __init__(self, width: int, depth: int, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.body = nn.Sequential(*[nn.Conv2d(width, width, 3, padding=1) for _ in range(depth)])
        self.linear = nn.Linear(width, 2)

    def forward(self, images: Tensor) -> Tensor:
        images = nn.functional.interpolate(images, (self.resolution, self.resolution))
        return self.linear(self.body(torch.relu(self.stem(images))).mean((2, 3)))


def maker(width: int = 20, depth: int = 10, resolution: int | None = None) -> nn.Module:
    return Shaped(width, depth, resolution or 12)


def two_options(width: float = 8.0, depth: int = 2) -> nn.Module:
    return Shaped(round(width), depth, 12)


def only_width(width: int = 4) -> nn.Module:
    return Shaped(width, 1, 12)


def scaling(make=maker, **options) -> Scaling:
    images = torch.randn(32, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    data = Data(images, (images.mean((1, 2, 3)) > 0).long())
    ticks = itertools.count()
    return Scaling(
        make, options, Task(data, data, data, batch=8, trial=True), Training(lr=0.01), clock=lambda: next(ticks)
    )


def cost(width: int, depth: int, resolution: int) -> int:
    return resolution**2 * 9 * (width + depth * width**2) + 2 * width


def test_grid_has_the_corners_and_only_candidates_near_twice_the_cost():
    made = scaling()
    base = cost(20, 10, 12)
    assert made.cost(made.at({"depth": 1, "width": 1, "resolution": 1})) == base
    grid = made.grid()
    for one in grid:
        assert one.multiply_adds == cost(**one.options) and abs(one.multiply_adds / (2 * base) - 1) <= 0.15
        product = one.factors["depth"] * one.factors["width"] ** 2 * one.factors["resolution"] ** 2
        assert product == pytest.approx(2, rel=0.04)
    options = [tuple(one.options.values()) for one in grid]
    assert {"width": 20, "depth": 20, "resolution": 12} in [one.options for one in grid]
    assert {"width": 28, "depth": 10, "resolution": 12} in [one.options for one in grid]
    assert len(set(options)) == len(options) > 5


def test_phi_is_the_largest_within_the_limit():
    made = scaling()
    best = Scaled({"depth": 1.2, "width": 1.1, "resolution": 1.15}, {}, 0.0)
    limit = 4 * cost(20, 10, 12)
    phi, found = made.carried(best, limit)
    assert cost(**found.options) == found.multiply_adds <= limit
    assert cost(**made.at(best.factors, phi + 0.1)) > limit
    assert 1.8 < phi < 2.3
    with pytest.raises(BadValue, match="scale: the base alone has"):
        made.carried(best, 1000)


def test_each_candidate_trains_as_long_by_the_clock():
    """A tick each time the clock is read: one for four steps, a fourth of a second each."""
    made = scaling(width=4, depth=1)
    one = made.tried(Scaled({}, {"width": 4, "depth": 1, "resolution": 12}, 0.0), seconds=3)
    assert one.epochs == pytest.approx(12 * 8 / 32) and 0 <= one.score <= 100


def test_best_candidate_comes_first_and_is_carried():
    ranked, phi, found = scaling(two_options, width=8.0, depth=2).scaled(3 * cost(8, 2, 12), seconds=0.5)
    assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)
    assert found.factors == ranked[0].factors and found.multiply_adds <= 3 * cost(8, 2, 12) and phi > 0.5
    text = scale_table(ranked, "%")
    assert text.count("\n") == len(ranked) + 1 and "multiply-adds" in text


def test_bases_that_cannot_be_scaled_are_refused_in_words():
    with pytest.raises(BadRecipe, match="has width of the options depth, width and resolution. It needs two"):
        scaling(only_width)
    with pytest.raises(BadValue, match="width of the base must be a number above 0, got 'wide'"):
        scaling(width="wide")
    with pytest.raises(BadValue, match="no combination of depth, width, resolution comes near"):
        scaling(width=1, depth=1, resolution=3).grid()
