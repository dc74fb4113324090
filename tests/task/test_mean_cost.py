"""Mean cost: shares, thresholds and curves against cases that were computed by hand."""

import math

import pytest
import torch

from cortado.errors import BadValue
from cortado.parts.blocks.rows import NEVER, FirstSure, confidence
from cortado.task.mean_cost import (
    ALWAYS,
    anytime_curve,
    geometric_shares,
    leaving,
    mean_cost_curve,
    thresholds_for,
)

SURE = torch.tensor([[0.9, 0.8, 0.3, 0.5], [0.6, 0.7, 0.9, 0.4], [0.5, 0.5, 0.5, 0.5]])
"""How sure three answers are of four samples."""
RIGHT = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])


def test_anytime_curve_is_the_mean_of_each_answer():
    assert [(one.cost, one.score) for one in anytime_curve(RIGHT, [1, 3, 10])] == [(1, 0.5), (3, 0.5), (10, 0.75)]


@pytest.mark.parametrize(
    ("costs", "mean", "shares"),
    [
        ((1.0, 2.0), 1.25, (0.75, 0.25)),  # two answers: (2 - 1.25) leave at the first
        ((1.0, 2.0, 3.0), 2.0, (1 / 3, 1 / 3, 1 / 3)),  # the middle: a ratio of 1
        ((1.0, 2.0, 4.0), 12 / 7, (4 / 7, 2 / 7, 1 / 7)),  # a ratio of 1/2: (4 + 4 + 4) / 7
        ((1.0, 2.0, 4.0), 3.0, None),  # more than the mean: a ratio above 1
    ],
)
def test_shares_are_geometric_and_meet_the_mean(costs, mean, shares):
    found = geometric_shares(costs, mean)
    assert sum(found) == pytest.approx(1)
    assert sum(share * cost for share, cost in zip(found, costs, strict=True)) == pytest.approx(mean)
    assert all(found[k + 1] ** 2 == pytest.approx(found[k] * found[k + 2]) for k in range(len(found) - 2))
    assert shares is None or found == pytest.approx(shares)


def test_least_and_largest_mean_are_the_first_answer_and_the_last():
    assert geometric_shares([1.0, 2.0, 4.0], 1.0) == pytest.approx([1, 0, 0], abs=1e-9)
    assert geometric_shares([1.0, 2.0, 4.0], 4.0) == pytest.approx([0, 0, 1], abs=1e-9)


@pytest.mark.parametrize("mean", [0.99, 4.01, math.nan])
def test_mean_that_no_shares_meet_is_refused(mean):
    with pytest.raises(BadValue, match=r"between the first answer's cost and the last one's, 1\.\.4, got"):
        geometric_shares([1.0, 2.0, 4.0], mean)


def test_surest_leave_first_and_later_answers_choose_among_those_that_stay():
    """One of four leaves at once, the first; of the others the third is surest at the second answer."""
    found = thresholds_for(SURE, [0.25, 0.25, 0.5])
    assert found == pytest.approx([0.8, 0.7])
    assert leaving(SURE, found).tolist() == [0, 2, 1, 2]


def test_equally_sure_samples_stay_together_and_the_next_answer_makes_up_for_them():
    sure = torch.tensor([[0.9, 0.7, 0.7, 0.1], [0.1, 0.9, 0.8, 0.7], [0.5] * 4])
    found = thresholds_for(sure, [0.5, 0.25, 0.25])
    assert found == pytest.approx([0.7, 0.7])
    assert leaving(sure, found).tolist() == [0, 1, 1, 2]


def test_shares_of_none_and_of_all_are_thresholds_that_none_and_all_pass():
    assert thresholds_for(SURE, [0.0, 0.0, 1.0]) == [NEVER, NEVER]
    assert leaving(SURE, thresholds_for(SURE, [0.0, 0.0, 1.0])).tolist() == [2, 2, 2, 2]
    assert thresholds_for(SURE, [1.0, 0.0, 0.0])[0] == ALWAYS
    assert leaving(SURE, thresholds_for(SURE, [1.0, 0.0, 0.0])).tolist() == [0, 0, 0, 0]


def test_mean_cost_curve_is_scored_on_other_samples_with_their_own_cost():
    """Half leave at the first answer of the samples that the threshold, 0.5, was chosen on; of the others three do."""
    chosen_on = torch.tensor([[0.9, 0.8, 0.5, 0.4], [0.5] * 4])
    sure, right = torch.tensor([[0.6, 0.7, 0.8, 0.1], [0.5] * 4]), torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    (found,) = mean_cost_curve(chosen_on, sure, right, [1.0, 5.0], [3.0])
    assert found.thresholds == pytest.approx((0.5,)) and found.shares == pytest.approx((0.75, 0.25))
    assert found.cost == pytest.approx(0.75 * 1 + 0.25 * 5) and found.score == pytest.approx(0.75)


def test_ends_of_the_mean_cost_curve_are_those_of_the_anytime_curve():
    found = mean_cost_curve(SURE, SURE, RIGHT, [1.0, 3.0, 10.0], [1.0, 10.0])
    wanted = anytime_curve(RIGHT, [1.0, 3.0, 10.0])
    assert [(one.cost, one.score) for one in found] == [(one.cost, one.score) for one in (wanted[0], wanted[-1])]


def test_samples_leave_where_the_network_lets_them():
    """The same thresholds in a FirstSure."""
    answers = torch.randn(4, 50, 6, generator=torch.Generator().manual_seed(0))
    sure = torch.stack([confidence(one, "margin") for one in answers])
    sure[1, 3] = math.nan
    answers[1, 3] = math.nan
    thresholds = thresholds_for(sure.nan_to_num(0), [0.2, 0.3, 0.3, 0.2])
    choose = FirstSure(4, "margin")
    choose.thresholds.copy_(torch.tensor(thresholds))
    choose(*answers)
    assert torch.equal(choose.left_at(), leaving(sure, thresholds))


def test_costs_that_do_not_fit_are_refused():
    for costs in ([1.0, 2.0], [1.0, 3.0, 3.0], [3.0, 2.0, 1.0]):
        with pytest.raises(BadValue, match="a cost for each of 3 answers, higher for later ones"):
            anytime_curve(RIGHT, costs)
