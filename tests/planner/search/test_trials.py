"""Trials: a score is kept surely or perhaps by luck, and an untrained mix corrects the forecast."""

import dataclasses

import pytest

from cortado.engine.recipe import Recipe, read_recipe
from cortado.planner.allocate.mix import Mix
from cortado.planner.allocate.plan import plan_for
from cortado.planner.allocate.size_accuracy_curve import planned, size_accuracy_curve
from cortado.planner.search.correction import corrected
from cortado.planner.search.trials import SearchGoal, Trial, shortfall
from cortado.report.report import Compared
from cortado.task.limits import read_limit, read_limits
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


@pytest.mark.parametrize(
    ("text", "sign", "original", "compressed", "half", "kept"),
    [
        ("score >= -1 %", 1, 90.0, 89.5, 0.98, True),  # half a point lost, error half a point
        ("score >= -1 %", 1, 90.0, 89.4, 0.98, False),
        ("score >= -1 %", 1, 90.0, 90.0, None, True),  # few samples: no interval, as it stands
        ("score >= 89 %", 1, 90.0, 89.6, 0.98, True),
        ("score >= 89 %", 1, 90.0, 89.4, 0.98, False),
        ("score >= -1", -1, 3.0, 3.4, 0.98, True),  # less is better: an error that may rise by one
        ("score >= -1", -1, 3.0, 3.6, 0.98, False),
        ("score >= 4", -1, 3.0, 3.4, 0.98, True),
        ("score >= 4", -1, 3.0, 3.6, 0.98, False),
    ],
)
def test_a_score_is_surely_kept_by_one_standard_error(text, sign, original, compressed, half, kept):
    """Ends of an interval of 95 % lie 1.96 errors from its middle: half of it 0.98 is an error of half a point."""
    gap = compressed - original
    low, high = (None, None) if half is None else (gap - half, gap + half)
    found, error = shortfall(read_limit(text), Compared(original, compressed, gap, low, high, 500), sign)
    assert (found <= 0) is kept and error == pytest.approx(0.0 if half is None else 0.5)


def test_what_may_be_luck_is_said_and_not_taken():
    limits = read_limits(["score >= -1 %", "size <= 50 B"])
    wanted = SearchGoal(limits, "size", 1, "%")
    met = {limit.text: -0.1 for limit in limits}
    sure = Trial({"stages": []}, "sure", 40, 90.0, over=met)
    lucky = Trial({"stages": []}, "lucky", 30, 90.1, over={**met, "score >= -1 %": 0.1}, error=0.7, narrowly=True)
    large = dataclasses.replace(lucky, size_bytes=60, over=dict.fromkeys(met, 0.1), narrowly=False)
    assert wanted.best([lucky, sure]) is sure
    assert [one.kept_text() for one in (sure, lucky, large)] == ["met", "met, within one standard error", "missed"]
    assert "1 trials met the score limit by less than its standard error (0.70 %)" in wanted.advice(lucky, [lucky])
    assert "luck" not in wanted.advice(sure, [sure])


@pytest.fixture(scope="module")
def curve():
    network, task = NET.make(), NET.task()
    return size_accuracy_curve(
        network, network, task, candidate_recipes=("quantize/weights bits=8", "share/kmeans bits=2")
    )


def test_a_mix_that_was_tried_corrects_the_size_accuracy_curve(curve):
    network, task = NET.make(), NET.task()
    least, most = (size - curve.rest_bytes for size in curve.sizes)
    size = round((least * most) ** 0.5)
    plan = plan_for(curve.choices, size)
    made = planned(plan, network, network, task)
    trial = Trial(Recipe((Mix(size=size),)).as_data(), "no cut", 100, 90.0)
    after = corrected(curve, trial, made, network, task)
    assert len(after.measured) == len(curve.measured) + 1
    assert after.kl(plan.predicted_kl) == pytest.approx(after.measured[-1].kl, rel=1e-6)


def test_nothing_else_does(curve):
    network, task = NET.make(), NET.task()
    trained = Trial(Recipe((Mix(size=500), *read_recipe("finetune epochs=1").stages)).as_data(), "no cut", 100, 90.0)
    rounded = Trial(read_recipe("quantize/weights").as_data(), "no cut", 100, 90.0)
    for trial, made in ((trained, network), (rounded, network), (trained, None)):
        assert corrected(curve, trial, made, network, task) is curve
    assert corrected(None, rounded, network, network, task) is None
