"""What the curvature cannot vouch for is measured, in the same nats, and the network is as it was afterwards."""

import copy
import math
from statistics import median

import pytest
import torch
from torch import nn

from cortado.methods.factorize.svd import FactorizeSvd
from cortado.methods.prune.weights import PruneWeights
from cortado.network.compare.divergence import divergence_for, output_rows
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.forms.attach import dense_form, form_of
from cortado.parts.forms.low_rank import LowRank
from cortado.planner.allocate.allocation import hull
from cortado.planner.sensitivity.candidate_recipes import carried_out
from cortado.planner.sensitivity.candidates import (
    Candidate,
    MeasuredCandidate,
    candidates_of,
    every_candidate,
    matmuls_a_sample,
    not_worth_measuring,
    trusted_candidates,
)
from cortado.planner.sensitivity.checks import (
    DOMINATED,
    EACH,
    LEAST_SAMPLES,
    LEAST_TRUSTED,
    MEASURED_ABOVE,
    MOST_SAMPLES,
    NOT_WORTH_MEASURING,
    TEMPERATURE,
    TRUSTED_BELOW,
    PredictionCheck,
    samples_for,
)
from cortado.planner.sensitivity.sensitivity import sensitivities
from cortado.task.outputs.classes import Classes
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME


def changed_by(network, original, task, way):
    """The weights of a copy after the stages of a way: those that every stage has changed."""
    return next(carried_out(network, original, task, [way]))[1]


def of_net(name):
    made = BY_NAME[name]
    network, task = made.make(), made.task()
    view = View(network, network, made.example)
    weights = [weight for weight in view.weights() if len(weight.shape) > 1]
    return network, task, weights, sensitivities(view, weights, task, 16)


def test_a_doubted_change_costs_what_it_does_alone():
    """A layer without bias or norm, so that nothing is given back: the divergence is that of the changed network, softened."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)).eval()
    data = Data(torch.randn(64, 4), torch.zeros(64, dtype=torch.int64))
    task = Task(data, data, data, calibration=data)
    view = View(network, network, task.example)
    price = sensitivities(view, view.weights("2.weight"), task, 16)["2.weight"]
    check = PredictionCheck(network, task, Classes())
    changed = torch.zeros(3, 6)
    found = check.measured("2.weight", price, dense_form(changed))
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[2].weight.zero_()
    wanted, given = (output_rows(one, data.inputs[:LEAST_SAMPLES], Classes()) / TEMPERATURE for one in (network, other))
    assert found == pytest.approx(float(Classes().divergence(wanted, given).mean()), rel=1e-4)


@pytest.mark.parametrize("net", ["residual", "transformer", "recurrent"])
def test_the_copy_is_as_it_was_after_every_change(net):
    network, task, weights, rated = of_net(net)
    check = PredictionCheck(network, task, divergence_for(network, task))
    inputs = task.calibration.first(8).inputs
    before = output_rows(check.duplicate, inputs, Classes())
    for weight in weights:
        check.measured(weight.path, rated[weight.path], dense_form(0 * weight.dense()))
        assert torch.equal(output_rows(check.duplicate, inputs, Classes()), before), weight.path
    assert not any(len(layer._forward_hooks) for layer in check.duplicate.modules())


def test_the_mean_of_outputs_is_given_back():
    """Weights that read a constant lose nothing but the mean, which match gives back: the change costs nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).eval()
    inputs = torch.randn(64, 4)
    inputs[:, 0] = 2.0
    data = Data(inputs, torch.zeros(64, dtype=torch.int64))
    task = Task(data, data, data, calibration=data)
    view = View(network, network, task.example)
    weight = view.weights("0.weight")[0]
    price = sensitivities(view, [weight], task, 16)["0.weight"]
    changed = weight.dense().clone()
    changed[:, 0] += 3.0
    assert PredictionCheck(network, task, Classes()).measured("0.weight", price, dense_form(changed)) < 1e-6


def test_sure_changes_give_one_factor_and_each_weight_its_own_correction():
    network, task, weights, rated = of_net("residual")
    check = PredictionCheck(network, task, divergence_for(network, task))
    assert check.factor is None and check.corrected_prediction("any", 0.5, 0.2) == 0.5
    middle = (TRUSTED_BELOW * MEASURED_ABOVE) ** 0.5
    for weight in weights[:LEAST_TRUSTED]:
        changed = weight.dense() + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        for share in (0.1, 1.0, 1.0, 0.9):
            check.note(weight.path, dense_form(changed), share * middle)
        check.learn(weight.path, rated[weight.path])
    check.note("too small to tell", dense_form(changed), TRUSTED_BELOW / 2)
    assert not check.sure
    own = {path: sum(some) / len(some) for path, some in check.known.items()}
    assert all(some[1] - some[0] == pytest.approx(-math.log(0.9)) for some in check.known.values())
    assert list(own) == [weight.path for weight in weights[:LEAST_TRUSTED]]
    assert all(len(some) == EACH for some in check.known.values())
    assert check.factor == pytest.approx(math.exp(median(ratio for some in check.known.values() for ratio in some)))
    assert check.corrected_prediction("any", 0.5, 0.2) == pytest.approx(0.2 * check.factor)
    assert check.corrected_prediction("another", 0.01) == 0.01
    for path, ratio in own.items():
        # Two of three parts of what the weight's own changes say.
        assert math.log(check.corrected_prediction(path, 0.01) / 0.01) == pytest.approx(
            2 / 3 * (math.log(check.factor) - ratio)
        )


def test_what_ways_begin_with_is_done_once_and_comes_out_the_same(monkeypatch):
    network, task, _, _ = of_net("residual")
    candidate_recipes = (
        "prune/weights keep=0.5 | share/kmeans bits=3",
        "prune/weights keep=0.5 | share/kmeans bits=2",
        "prune/weights keep=0.5",
        "prune/weights keep=0.3 | share/kmeans bits=2",
        "share/kmeans bits=2",
    )
    runs, real = [], PruneWeights.apply
    monkeypatch.setattr(PruneWeights, "apply", lambda self, *given: runs.append(self.keep) or real(self, *given))
    together = {
        way: {one.path: one.dense() for one in some}
        for way, some in carried_out(network, network, task, candidate_recipes)
    }
    assert runs == [0.5, 0.5, 0.3]
    for way in candidate_recipes:
        alone = {one.path: one.dense() for one in changed_by(network, network, task, way)}
        assert alone and alone.keys() == together[way].keys()
        assert all(torch.equal(alone[path], together[way][path]) for path in alone)


def test_low_rank_is_doubted_however_little_it_is_predicted_to_cost():
    network, task, _, _ = of_net("residual")
    made = copy.deepcopy(network)
    FactorizeSvd(rank=2).apply(View(made, network, task.example), task)
    attached = next(one for one in View(made, network, task.example).all_weights if isinstance(one.form, LowRank))
    check = PredictionCheck(network, task, divergence_for(network, task))
    assert check.needs_measurement(attached.form, 1e-9)
    assert check.needs_measurement(dense_form(attached.dense()), MEASURED_ABOVE * 1.01)
    assert not check.needs_measurement(dense_form(attached.dense()), MEASURED_ABOVE * 0.99)


def test_few_samples_do_for_large_networks():
    assert samples_for(0) == samples_for(1e6) == MOST_SAMPLES
    assert samples_for(1e12) == LEAST_SAMPLES
    assert LEAST_SAMPLES < samples_for(2e8) < MOST_SAMPLES


def test_a_way_counts_only_for_weights_that_all_its_stages_change():
    """Low rank leaves small weights alone; what rounds them afterwards is another way."""
    network, task, _, rated = of_net("residual")
    way = "factorize/svd rank=4 | share/kmeans bits=3"
    weights = changed_by(network, network, task, way)
    assert weights and all(isinstance(form_of(*one.places[0]), LowRank) for one in weights)
    found = every_candidate(View(network, network, task.example), task, rated, [way, "share/kmeans bits=3"])
    assert {len(some) for some in found.values()} == {2, 3}


def watched(monkeypatch):
    """What is measured, by path and bits of the form."""
    seen, real = [], PredictionCheck.measured

    def measured(self, path, price, form):
        seen.append(path)
        return real(self, path, price, form)

    monkeypatch.setattr(PredictionCheck, "measured", measured)
    return seen


def test_mostly_candidates_on_the_hull_are_measured(monkeypatch):
    """Each doubted choice that an allocation steps on was measured; what is far above the hull was not."""
    network, task, _, rated = of_net("transformer")
    tried, open_at_first, real = {}, {}, trusted_candidates

    def keeping(some, check, path):
        tried[path] = (list(some), check)
        open_at_first.setdefault(path, sum(one.form is not None for one in some))
        return real(some, check, path)

    monkeypatch.setattr("cortado.planner.sensitivity.candidates.trusted_candidates", keeping)
    for module in ("candidates", "checks"):
        monkeypatch.setattr(f"cortado.planner.sensitivity.{module}.MEASURED_ABOVE", few := 1e-3)
    seen = watched(monkeypatch)
    choices = candidates_of(View(network, network, task.example), task, rated)
    doubted, on_hulls = 0, 0
    for one in choices:
        some, check = tried[one.path]
        by_candidate = {each.candidate.way: each for each in some}
        for taken in hull(one.candidates):
            each = by_candidate[taken.way]
            if each.low_rank or each.candidate.predicted_kl > few:
                assert each.found is not None, (one.path, taken)
                on_hulls += 1
        doubted += sum(each.low_rank or each.candidate.predicted_kl > few for each in some)
    learned = sum(map(len, check.known.values()))
    assert check.factor is not None and on_hulls > 0
    # Of what could have been measured not all was: some never was on the hull.
    assert on_hulls <= len(seen) - learned < sum(open_at_first.values()) < doubted


def test_what_is_hopeless_is_not_measured(monkeypatch):
    """What costs several nats by prediction, or several times as much as something smaller."""
    network, task, _, rated = of_net("residual")
    seen = watched(monkeypatch)
    candidate_recipes = [
        "quantize/weights bits=4",
        "share/kmeans bits=1",
        "prune/weights keep=0.05 | quantize/weights bits=8",
    ]
    monkeypatch.setattr("cortado.planner.sensitivity.candidates.NOT_WORTH_MEASURING", 0.0)
    monkeypatch.setattr(PredictionCheck, "note", lambda *given: None)
    monkeypatch.setattr(PredictionCheck, "factor", 1.0)
    monkeypatch.setattr("cortado.planner.sensitivity.checks.MEASURED_ABOVE", 1e-6)
    found = every_candidate(View(network, network, task.example), task, rated, candidate_recipes)
    assert not seen and max(one.predicted_kl for some in found.values() for one in some) > 1e-4


def test_what_something_smaller_of_its_kind_beats_by_far_is_hopeless():
    some = [MeasuredCandidate(Candidate("", 100, 0.0)), MeasuredCandidate(Candidate("small", 10, 0.1))]
    assert not not_worth_measuring(MeasuredCandidate(Candidate("larger", 20, 0.99 * DOMINATED * 0.1)), some)
    assert not_worth_measuring(MeasuredCandidate(Candidate("larger", 20, 1.01 * DOMINATED * 0.1)), some)
    assert not not_worth_measuring(MeasuredCandidate(Candidate("smaller", 9, 1.01 * DOMINATED * 0.1)), some)
    assert not not_worth_measuring(
        MeasuredCandidate(Candidate("low rank", 20, 1.01 * DOMINATED * 0.1), low_rank=True), some
    )
    assert not_worth_measuring(MeasuredCandidate(Candidate("too much", 1, 1.01 * NOT_WORTH_MEASURING)), some)


def test_unmeasured_candidates_cost_no_less_than_better_measured_ones():
    network, task, _, _ = of_net("residual")
    check = PredictionCheck(network, task, divergence_for(network, task))
    check.known = {path: [0.0] for path in ("a", "b", "c")}
    some = [
        MeasuredCandidate(Candidate("", 100, 0.0)),
        MeasuredCandidate(Candidate("measured", 10, 0.2), found=0.9),
        MeasuredCandidate(Candidate("hopeless", 9, 0.5)),
        MeasuredCandidate(Candidate("low rank", 8, 0.5), low_rank=True),
        MeasuredCandidate(Candidate("believed", 50, 0.01)),
    ]
    assert [one.predicted_kl for one in trusted_candidates(some, check, "path")] == [0.0, 0.9, 0.9, 0.5, 0.01]


def test_multiply_adds_of_a_candidate_are_those_of_its_factors():
    network, task, _, rated = of_net("residual")
    low = "factorize/svd rank=2 | share/kmeans bits=3"
    found = every_candidate(View(network, network, task.example), task, rated, ["quantize/weights bits=4", low])
    many = 0
    for path, some in found.items():
        assert len({one.multiply_adds for one in some if one.way != low}) == 1 and some[0].multiply_adds > 0, path
        for one in some:
            if one.way == low:
                many += 1
                assert 0 < one.multiply_adds < some[0].multiply_adds
    assert many


@pytest.mark.parametrize(("net", "layer"), [("transformer", "out_proj"), ("recurrent", "weight_ih")])
def test_weights_of_one_layer_share_its_multiply_adds(net, layer):
    """What a recurrent layer or attention takes is handed out to its weights by their entries, and nothing is counted twice."""
    network, task, _, _ = of_net(net)
    view = View(network, network, task.example)
    found, total = matmuls_a_sample(view)
    assert any(layer in path for path in found) and all(cost > 0 for cost in found.values())
    rows = [row for row in profile(network, task.example).rows if row.weights]
    assert sum(found.values()) == pytest.approx(sum(row.multiply_adds for row in rows)) and total >= sum(found.values())
