"""Tried: who is beaten by no other, against a look at all pairs; and the way through a report's JSON."""

import dataclasses
import json
import random

import pytest

from cortado.report.candidate import Tried, pareto_front, smallest_first
from cortado.report.report import read_report
from tests.report.test_report import small_report

FRONT = (
    Tried("prune/weights keep=0.5 | finetune epochs=2", 300, 97.25, True, True, 2.0, 1.5),
    Tried("share/kmeans bits=1", 100, 90.5, False),
)


@pytest.mark.parametrize("higher", [True, False])
def test_front_is_those_that_no_other_beats(higher):
    chance = random.Random(3)
    points = [(float(chance.randrange(12)), float(chance.randrange(9))) for _ in range(40)]
    sign = 1 if higher else -1

    def beaten(one):
        return any(other != one and other[0] <= one[0] and sign * other[1] >= sign * one[1] for other in points)

    found = pareto_front(points, cost=lambda one: one[0], harm=lambda one: -sign * one[1])
    assert found == sorted({one for one in points if not beaten(one)})


def test_a_score_that_is_no_number_is_never_the_best():
    found = pareto_front([(1.0, float("nan")), (2.0, 5.0)], cost=lambda one: one[0], harm=lambda one: -one[1])
    assert found == [(2.0, 5.0)]


def test_smallest_come_first():
    assert [one.size_bytes for one in smallest_first(FRONT)] == [100, 300]


def test_front_comes_back_from_json(tmp_path):
    report = dataclasses.replace(small_report(), front=FRONT)
    path = tmp_path / "report.json"
    path.write_text(report.as_json())
    assert read_report(path) == report


def test_reports_from_before_there_was_a_front_are_read(tmp_path):
    data = json.loads(small_report().as_json())
    assert data.pop("front") == []
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data))
    assert read_report(path).front == ()
