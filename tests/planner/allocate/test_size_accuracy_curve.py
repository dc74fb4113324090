"""What a forecast says of itself is measured; tasks whose answers are no classes, and candidates' bytes."""

import copy
import dataclasses
import itertools
import math
import re

import pytest
import torch
from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.file.accounting import layer_rows
from cortado.file.record_bytes import LARGE, body_bytes, record_bytes
from cortado.network.view import View
from cortado.network.weight import parameter_places
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.low_rank import LowRank
from cortado.planner.allocate.feasibility import Feasibility
from cortado.planner.allocate.measured_plans import Measured, mean_divergences
from cortado.planner.allocate.plan import Plan
from cortado.planner.allocate.size_accuracy_curve import SPREAD, SizeAccuracyCurve, size_accuracy_curve
from cortado.planner.sensitivity import candidates, remembering
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES, carried_out
from cortado.planner.sensitivity.candidates import Candidate, Choices
from cortado.planner.sensitivity.deadline import Deadline
from cortado.planner.sensitivity.remembering import RememberingTask
from cortado.planner.sensitivity.sensitivity import sensitivities
from cortado.task.limits import read_limits
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME


def changed_by(network, original, task, way):
    """The weights of a copy after the stages of a way: those that every stage has changed."""
    return next(carried_out(network, original, task, [way]))[1]


def with_ratios(*ratios, predicted_kls=(0.01, 0.1, 1.0)):
    """A forecast whose measured plans have these ratios of KL to predicted KL."""
    plans = [Plan({"weight": Candidate("", 10, predicted_kl)}) for predicted_kl in predicted_kls]
    measured = [Measured(plan, ratio * plan.predicted_kl, 90.0, 100) for plan, ratio in zip(plans, ratios, strict=True)]
    return SizeAccuracyCurve((), 0, 95.0, 1, tuple(measured))


def test_misses_are_of_plans_that_the_prediction_has_not_seen():
    assert with_ratios(0.5, 0.5, 0.5).misses == pytest.approx([1, 1, 1])
    # Outer ones are predicted as their only neighbours, the inner one from the line between both.
    assert with_ratios(1.0, 2.0, 1.0).misses == pytest.approx([2, 2, 2])
    assert with_ratios(1.0, 2.0, 4.0).misses == pytest.approx([2, 1, 2])
    assert with_ratios(0.5, predicted_kls=(0.1,)).misses == []


def test_spread_is_as_measured_plans_miss_and_never_small():
    assert with_ratios(0.5, 0.5, 0.5).spread == SPREAD
    assert with_ratios(1.0, 9.0, 1.0).spread == pytest.approx(9)
    assert with_ratios(1.0, 2.0, 4.0).spread == pytest.approx(math.exp(math.sqrt(2 / 3) * math.log(2)))
    said = Feasibility(with_ratios(1.0, 2.0, 4.0), 1000, "accuracy", "%").trust()
    assert "each measured mix was off by a factor of 2.00, 1.00, 2.00." in said


def test_numbers_are_forecast_as_shares_of_variance():
    """A network whose answers are no classes: KL is half the share of variance lost, whatever the unit."""
    torch.manual_seed(0)
    inputs, found = torch.randn(300, 12), []
    for unit in (1.0, 50.0):
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 6)).eval()
        with torch.no_grad():
            network[2].weight.mul_(unit)
            network[2].bias.mul_(unit)
        data = Data(inputs, torch.zeros(300, dtype=torch.int64))
        task = Task(data, data, data, calibration=data, outputs=Numbers())
        found.append(
            size_accuracy_curve(
                network, network, task, ("quantize/weights bits=4", "quantize/weights bits=2"), (0.05, 0.3)
            )
        )
    first, second = ([one.kl for one in reported.measured] for reported in found)
    assert first == pytest.approx(second, rel=1e-3) and 0 < first[0] < first[1] < 0.5
    assert 0.3 < found[0].constant < 3


def test_divergences_of_several_networks_are_those_of_each():
    made = BY_NAME["residual"]
    original, other, task = made.make(), made.make(), made.task()
    with torch.no_grad():
        other.head.weight.mul_(1.1)
    both = mean_divergences(original, [original, other], task.validation, Classes())
    assert both[0] == 0 and both[1] == mean_divergences(original, [other], task.validation, Classes())[0] > 0


@pytest.mark.parametrize("way", ["quantize/weights bits=4", "prune/weights keep=0.3 | share/kmeans bits=3"])
def test_bytes_of_a_candidate_are_about_those_of_its_record(way):
    made = BY_NAME["residual"]
    original, task = made.make(), made.task()
    changed = copy.deepcopy(original)
    for stage in read_recipe(way).stages:
        stage.apply(View(changed, original, task.example), task)
    rows = {row.path: row.size_bytes for row in layer_rows(changed, original)}
    for weight in parameter_places(changed):
        if len(weight.shape) > 1:
            assert rows[weight.path] <= record_bytes(weight.form) <= 1.05 * rows[weight.path] + 8


def test_no_more_of_a_score_is_lost_than_there_is():
    found = with_ratios(1.0, 1.0, 1.0)
    assert 0 < found.lost(0.005) < found.lost(1.0) < found.lost(1e6) == found.score


def test_choices_are_priced_once_for_a_network_and_again_for_another(monkeypatch):
    made, asked = BY_NAME["residual"], []
    original, task, candidate_recipes = made.make(), RememberingTask.of(made.task()), ("quantize/weights bits=5",)
    monkeypatch.setattr(
        candidates, "sensitivities", lambda *given, **more: asked.append(given) or sensitivities(*given, **more)
    )

    def choices(network, task):
        view = View(network, original, task.example)
        return candidates.choices_for(
            view, [one for one in view.all_weights if len(one.shape) > 1], task, candidate_recipes
        )

    assert choices(original, task) == choices(copy.deepcopy(original), task) and len(asked) == 1
    other = copy.deepcopy(original)
    with torch.no_grad():
        other.head.weight.mul_(1.5)
    choices(other, task)
    choices(original, dataclasses.replace(task, calibration=task.calibration.first(20)))
    assert len(asked) == 3
    for seed in range(5):
        choices(original, dataclasses.replace(task, seed=seed + 7))
    assert len(task.kept) == remembering.MOST_KEPT
    # What was kept belongs to that task, and to what was made of it, alone.
    before = len(asked)
    choices(original, dataclasses.replace(task, seed=11))
    assert len(asked) == before
    choices(original, RememberingTask.of(dataclasses.replace(made.task(), seed=11)))
    choices(original, dataclasses.replace(made.task(), seed=11))
    choices(original, dataclasses.replace(made.task(), seed=11))
    assert len(asked) == before + 3


def test_what_a_clock_has_cut_short_is_not_kept_for_trials():
    """A trial's allocation is the same before and after a kill, and in another search."""
    made = BY_NAME["residual"]
    original, task = made.make(), RememberingTask.of(made.task())
    view = View(original, original, task.example)
    weights = [one for one in view.all_weights if len(one.shape) > 1]
    ways = CANDIDATE_RECIPES[:3]
    short = candidates.choices_for(view, weights, task, ways, Deadline(1e-6))
    assert not task.kept
    whole = candidates.choices_for(view, weights, task, ways)
    assert list(task.kept.values()) == [whole] and short != whole
    assert candidates.choices_for(view, weights, task, ways, Deadline(600.0)) is whole


def test_size_accuracy_curve_with_little_time_names_what_it_left_out():
    made = BY_NAME["residual"]
    network, task = made.make(), made.task()
    found = size_accuracy_curve(network, network, task, time_limit=1e-6)
    assert {one.way for validation in found.choices for one in validation.candidates} == {"", CANDIDATE_RECIPES[0]}
    assert (
        not found.measured
        and f"{len(CANDIDATE_RECIPES) - 1} of {len(CANDIDATE_RECIPES)} candidate recipes" in " ".join(found.left_out)
    )
    assert (
        any("samples for sensitivities" in one for one in found.left_out) and "plans to measure" in found.left_out[-1]
    )
    said = Feasibility(found, 1000, "accuracy", "%", read_limits(["score >= -1 %", "size <= 1 MB"])).text()
    assert "Skipped, as time was up: " in said and "No mix was measured" in said and "nan" not in said
    whole = size_accuracy_curve(
        network, network, task, (CANDIDATE_RECIPES[0], CANDIDATE_RECIPES[3]), time_limit="10 min"
    )
    assert whole.left_out == () and whole == size_accuracy_curve(
        network, network, task, (CANDIDATE_RECIPES[0], CANDIDATE_RECIPES[3])
    )


def test_a_size_accuracy_curve_keeps_to_its_time(monkeypatch):
    """Where each way takes an eighth of a second, a limit of a second carries out five: three fifths and a begun one."""
    made, done, now = BY_NAME["mlp"], [], [0.0]

    def slow(network, original, task, candidate_recipes):
        for way in candidate_recipes:
            now[0] += 0.125
            done.append(way)
            yield way, []

    monkeypatch.setattr(candidates, "carried_out", slow)
    network, task = made.make(), made.task()
    view = View(network, network, task.example)
    rated = sensitivities(view, [one for one in view.all_weights if len(one.shape) > 1], task, 4)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    deadline = Deadline(1.0)
    candidates.every_candidate(view, task, rated, CANDIDATE_RECIPES, deadline)
    assert done == list(CANDIDATE_RECIPES[:5])
    assert f"from {CANDIDATE_RECIPES[len(done)]} on" in deadline.left_out[0]


@pytest.mark.parametrize("lost", [1.0, 100.0, 123.45])
def test_plan_columns_stay_aligned(lost):
    """What stands between two blanks in a row begins and ends where its head and its line do."""
    candidates = (Candidate("", 1000, 0.0), Candidate("quantize/weights bits=4", 100, 1.0))
    plan = Plan({"weight": candidates[1]})
    found = SizeAccuracyCurve((candidates_of_one(candidates),), 10, 2 * lost, 1, (Measured(plan, 1.0, lost, 110),))
    lines = Feasibility(found, 4000, "perplexity", "points").table().splitlines()
    ruler = next(number for number, line in enumerate(lines) if line.startswith("─"))
    ends = [match.span() for match in re.finditer("─+", lines[ruler])]
    rows = [lines[ruler - 1], *lines[ruler + 1 : lines.index("", ruler)]]
    assert len(rows) > 2 and f"{lost:.2f}" in "".join(rows)
    for row in rows:
        for (_, end), (begin, _) in itertools.pairwise(ends):
            assert row[end:begin].strip() == "", row
        assert all(row[end - 1] != " " for _, end in ends[:-1]), row


def candidates_of_one(candidates):
    return Choices("weight", 1000, candidates)


@pytest.mark.parametrize(
    "way", ["quantize/weights bits=4", "prune/weights keep=0.2 | share/kmeans bits=3", "share/kmeans bits=2"]
)
def test_bytes_of_a_large_record_are_told_from_some_of_its_rows(way):
    """Rows of growing spread, so that the first ones do not stand for all."""
    layer = nn.Linear(512, 1024)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(1024, 512, generator=torch.Generator().manual_seed(0)))
        layer.weight *= torch.linspace(0.1, 1.0, 1024)[:, None]
    network = nn.Sequential(layer).eval()
    data = Data(torch.randn(8, 512), torch.zeros(8, dtype=torch.long))
    task = Task(data, data, data, trial=True)
    (weight,) = [one for one in changed_by(network, network, task, way) if one.name == "weight"]
    assert sum(value.numel() for value in weight.form.state_dict().values()) > LARGE
    assert record_bytes(weight.form) == pytest.approx(body_bytes(weight.form, "quick"), rel=0.01)


def test_bytes_of_wide_factors_are_told_though_few_rows_of_them_would_be_refused():
    form = LowRank(Dense(torch.randn(200, 2304)), Dense(torch.randn(256, 200)))
    assert record_bytes(form) == pytest.approx(body_bytes(form, "quick"), rel=0.01)
