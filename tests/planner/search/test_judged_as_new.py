"""Validation data that a network knows by heart: the planner says so before it starts, and judges trials on noisy copies."""

import logging

import pytest
import torch

import cortado
from cortado.planner.search.goal import GoalSearch, reach
from cortado.task.known_data import judged_as_new, mean_loss
from cortado.task.measure import mean_score
from tests.task.test_known_data import learned, task

HEART = "know the validation data by heart"


@pytest.fixture(scope="module")
def known():
    given = task("pictures")
    return learned(given), given


def test_trials_are_judged_on_copies_and_the_result_on_test_data(tmp_path, known, monkeypatch, caplog):
    monkeypatch.setattr(GoalSearch, "enough", lambda self: len(self.trials) > 1)
    net, given = known
    with caplog.at_level(logging.INFO, "cortado"):
        got = reach(net, given, ["score >= -3 %"], time_limit="5 min", folder=tmp_path)
    assert HEART in caplog.messages[0] and any(line.startswith("trial 1 (8 bits") for line in caplog.messages[1:])
    copies = judged_as_new(net, given).task
    assert got.report.original_validation == mean_score(net, copies.validation, given.metric)
    assert got.report.original_validation < mean_score(net, given.validation, given.metric) == 100
    assert got.report.test.original == mean_score(net, given.test, given.metric)
    assert HEART in got.report.warnings[0] and HEART in got.notes[0] and HEART in got.text()


def test_resumed_search_has_the_same_copies(tmp_path, known, monkeypatch):
    monkeypatch.setattr(GoalSearch, "enough", lambda self: len(self.trials) > 1)
    net, given = known
    first = reach(net, given, ["score >= -3 %"], time_limit="5 min", folder=tmp_path)
    again = reach(net, given, ["score >= -3 %"], time_limit="5 min", folder=tmp_path, resume=True)
    assert [one.score for one in again.trials] == [one.score for one in first.trials]
    assert [one.seconds for one in again.report.stages] == [one.seconds for one in first.report.stages], (
        "no stage ran again"
    )


def test_plan_foresees_losses_on_copies_and_says_so(known):
    net, given = known
    found = cortado.plan(net, given, ["score >= -3 %"], time_limit="1 s")
    assert HEART in found.text().splitlines()[0]
    curve, copies = found.size_accuracy_curve, judged_as_new(net, given).task.validation
    assert curve.score == mean_score(net, copies.first(curve.samples), given.metric)


def test_copies_are_shifted_like_any_pictures(tmp_path, known):
    """A limit under a shift sees the copies, shifted."""
    net, given = known
    limits = ["score >= -100 %", "score >= -100 % under blur"]
    got = reach(net, given, limits, time_limit="1 ms", folder=tmp_path)
    assert got.report.met and set(got.best.over) == set(limits)


def test_new_validation_data_are_judged_as_they_are(tmp_path, caplog):
    given = task("pictures", known=False)
    net = learned(given, both=False)
    got = reach(net, given, ["score >= -3 %"], time_limit="1 ms", folder=tmp_path)
    assert not any(HEART in one for one in (*caplog.messages, *got.report.warnings)) and got.notes == ()
    assert got.report.original_validation == mean_score(net, given.validation, given.metric)
    assert torch.isfinite(torch.tensor(mean_loss(net, given.validation, given).mean))
