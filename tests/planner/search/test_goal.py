"""Goals: limits are kept where they can be, the closest network is given where not, and an interrupted run goes on."""

import dataclasses
import json
import math
import sys

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, BadTask, BadValue, Diverged
from cortado.file.whole import write_whole
from cortado.methods.finetune import Finetune
from cortado.planner.allocate.allocation_report import explained, reasons
from cortado.planner.allocate.feasibility import Feasibility, family
from cortado.planner.allocate.size_accuracy_curve import MEASURED_AT, size_accuracy_curve
from cortado.planner.search.goal import GoalSearch, epochs_for, reach
from cortado.planner.search.trials import SearchGoal, Trial
from cortado.task.limits import read_limits
from cortado.task.task import Metric
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]
TIMED = BY_NAME["mlp"]
"""For searches that time: each of their networks is exported, which takes longer the more layers there are."""


@pytest.fixture(scope="module")
def found():
    """What is foreseen of a tiny network."""
    network, task = NET.make(), NET.task()
    return size_accuracy_curve(
        network,
        network,
        task,
        candidate_recipes=("quantize/weights bits=8", "quantize/weights bits=3", "share/kmeans bits=2"),
    )


@pytest.fixture
def one_cut(monkeypatch):
    """Times are taken of one cut only, and in no runtime but the one of the limit."""
    monkeypatch.setattr("cortado.runtimes.measured.rivals", lambda: ())
    monkeypatch.setattr("cortado.planner.search.shapes.cuts_for", lambda runtime, threads: ("prune/channels keep=0.5",))


@pytest.fixture
def two_trials(monkeypatch):
    """The safe candidate and the first idea alone, whatever the machine's speed."""
    monkeypatch.setattr(GoalSearch, "enough", lambda self: len(self.trials) > 1)


def plain_size(net=NET):
    return sum(value.numel() * value.element_size() for value in net.make().state_dict().values())


def test_smaller_files_are_expected_to_cost_more(found):
    rows = Feasibility(found, plain_size(), "accuracy", "%").rows()
    sizes, divergence = [row.size_bytes for row in rows], [row.kl[0] for row in rows]
    assert (
        sizes == sorted(sizes, reverse=True) and divergence == sorted(divergence) and divergence[-1] > divergence[0] > 0
    )
    assert all(row.kl[1] < row.kl[0] < row.kl[2] for row in rows)


def test_measured_plans_are_met_exactly(found):
    assert len(found.measured) >= 2
    for one in found.measured:
        assert found.kl(one.plan.predicted_kl) == pytest.approx(one.kl, rel=1e-6)
    assert found.lost(0.0) == 0 and found.plan(1) is None


def test_plans_are_measured_on_until_one_loses_some_of_the_score():
    """From plans that lose nothing it cannot be told that none does: the smallest is measured as well."""
    never = dataclasses.replace(
        NET.task(), metric=Metric("there", "%", lambda outputs, targets: torch.ones(len(targets)))
    )
    network, candidate_recipes = NET.make(), ("quantize/weights bits=8", "share/kmeans bits=1")
    mild = (1e-6, 1e-5)
    seen = size_accuracy_curve(network, network, never, candidate_recipes, mild)
    assert len(seen.measured) == 3 and max(one.plan.predicted_kl for one in seen.measured[:2]) <= 1e-5
    assert min(one.plan.size_bytes for one in seen.measured) + seen.rest_bytes == seen.sizes[0]
    usual = size_accuracy_curve(network, network, NET.task(), candidate_recipes, mild)
    assert len(usual.measured) == 2 or all(one.score == usual.score for one in usual.measured[:2])


def test_plans_are_measured_at_damages_up_to_the_smallest_mix(found):
    """Where all predicted KLs are small those of the plans are less by as much; the smallest mix is one of them."""
    predicted_kls = sorted(one.plan.predicted_kl for one in found.measured)
    assert predicted_kls[-1] == found.plan(found.sizes[0]).predicted_kl < MEASURED_AT[-1]
    assert predicted_kls[0] < 0.2 * predicted_kls[-1]


def test_feasibility_says_whether_limits_can_be_kept(found):
    limits = read_limits(["size <= 1 B", "score >= -100 %", "latency <= 1 ms in onnxruntime"])
    said = Feasibility(found, plain_size(), "accuracy", "%", limits).text()
    assert "size <= 1 B: not by weights alone" in said and "score >= -100 %: the smallest file" in said
    assert "Does not help latency:" in said and "zeros are left out in onnxruntime only" in said
    easy = read_limits([f"size <= {plain_size()} B"])
    assert "feasible" in Feasibility(found, plain_size(), "accuracy", "%", easy).limits_text()


def test_families_together_cost_no_more_than_one_alone(found):
    least, most = found.sizes
    costs = Feasibility(found, plain_size(), "accuracy", "%").families((least * most) ** 0.5)
    alone = [cost for name, cost in costs.items() if name != "all together" and cost is not None]
    assert set(costs) == {"quantize/weights", "share/kmeans", "all together"}
    assert costs["all together"] <= min(alone) * 1.02
    assert family("prune/weights keep=0.3 | share/kmeans bits=4") == "prune/weights | share/kmeans"


def test_size_is_made_small_as_long_as_the_score_is_kept(tmp_path, two_trials):
    network, task = NET.make(), NET.task()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    got = reach(network, task, ["score >= -100 %"], time_limit="5 min", folder=tmp_path)
    assert got.report.met and got.best.keeps_all and got.report.lines[0].compressed < plain_size() / 4
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert got.best.size_bytes < got.trials[0].size_bytes and got.best in got.front
    assert "<- taken" in got.text() and notes(tmp_path)[0]["size_bytes"] > 0


def test_size_of_a_runtime_file_is_kept_like_any_other_limit(tmp_path, two_trials, one_cut):
    limits = ["score >= -100 %", "size of torch_eager <= 1 MB"]
    report = reach(TIMED.make(), TIMED.task(), limits, time_limit="5 min", folder=tmp_path).report
    (line,) = [line for line in report.first_lines() if line.what == "file for torch_eager"]
    assert line.met and line.limit == limits[1] and report.met
    assert line.compressed == report.exports[0].size_bytes
    assert all(trial["file_bytes"] > 0 for trial in notes(tmp_path) if trial["size_bytes"])


def notes(folder):
    """What stands in the folders of the trials, in order."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("trials/*/trial.json"))]


@pytest.mark.parametrize("score", [-30.0, -1.0, 0.0])
def test_with_next_to_no_time_no_limit_is_missed_that_8_bits_keep(tmp_path, score):
    """The safe candidate is tried first, and taken where nothing else was tried that keeps the limits."""
    network, task = NET.make(), NET.task()
    limit = f"score >= {score:+} %" if score else "score >= -0 %"
    _, alone = compress(network, task.for_trial(), "quantize/weights bits=8", limits=[limit])
    got = reach(network, task, [limit], time_limit="1 ms", folder=tmp_path)
    first = got.trials[0]
    assert [next(iter(stage)) for stage in first.recipe["stages"]][0] == "quantize/weights" and first.shape == "8 bits"
    assert first.score >= alone.stages[-1].score - 1e-9 and not first.trained
    assert got.best.keeps_all or not first.keeps_all
    if first.keeps_all:
        assert len(got.trials) == 1, "what keeps all limits is there, and time is up"


def test_a_miss_is_taken_only_where_nothing_kept_the_limits():
    limits = read_limits(["score >= -1 %"])
    goal = SearchGoal(limits, "size", 1, "%")
    safe = Trial({"stages": []}, "8 bits", 100, 90.0, over={limits[0].text: -0.01})
    small = Trial({"stages": []}, "no cut", 10, 95.0, over={limits[0].text: 0.2})
    assert goal.best([small, safe]) is safe and goal.best([small]) is small


@pytest.mark.parametrize("time_limit", ["0 s", "-5 min", 0.0])
def test_time_limit_that_allows_nothing_is_refused_with_a_way_out(tmp_path, time_limit):
    for asked in (
        lambda: reach(NET.make(), NET.task(), ["score >= -1 %"], time_limit=time_limit, folder=tmp_path / "new"),
        lambda: size_accuracy_curve(NET.make(), NET.make(), NET.task(), time_limit=time_limit),
    ):
        with pytest.raises(BadValue, match=r"allows nothing. Write, for example, --time-limit '5 min'"):
            asked()
    assert not (tmp_path / "new").exists()


def test_goal_missed_gives_the_closest_and_what_binds(tmp_path):
    got = reach(NET.make(), NET.task(), ["size <= 10 B"], minimise="loss", time_limit="1 ms", folder=tmp_path)
    assert not got.report.met and got.network is not None
    assert "Missed: size <= 10 B." in got.advice and got.advice in got.text()


def test_interrupted_search_continues_with_its_trials(tmp_path, monkeypatch):
    limits = [f"size <= {plain_size() // 6} B"]

    def killed(self, view, task):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(BaseException, match=r"interrupted"):
        patch.setattr(Finetune, "apply", killed)
        reach(NET.make(), NET.task(), limits, minimise="loss", time_limit="10 min", folder=tmp_path)
    begun = notes(tmp_path)
    # However many trials train nothing: the one that was killed is the first that trains.
    count = len(begun)
    assert count > 2 and [bool(one["size_bytes"]) for one in begun] == [True] * (count - 1) + [False]
    monkeypatch.setattr(GoalSearch, "enough", lambda self: len(self.trials) >= count)
    got = reach(NET.make(), NET.task(), limits, minimise="loss", time_limit="10 min", folder=tmp_path, resume=True)
    assert [one.recipe for one in got.trials[:count]] == [one["recipe"] for one in begun]
    assert [one.size_bytes for one in got.trials[: count - 1]] == [one["size_bytes"] for one in begun[:-1]]
    assert [one.trained for one in got.trials[:count]] == [False] * (count - 1) + [True]


def test_search_interrupted_twice_forgets_no_trial(tmp_path, monkeypatch):
    limits, trials = ["score >= -100 %"], tmp_path / "trials"
    reach(NET.make(), NET.task(), limits, time_limit="1 ms", folder=tmp_path)
    (first,) = notes(tmp_path)
    second = {**first, "number": 2, "recipe": {"stages": [{"quantize/weights": {"bits": 4}}]}, "seconds": 40.0}
    (trials / "001/trial.json").write_text(json.dumps({**first, "seconds": 20.0}))
    (trials / "002").mkdir()
    (trials / "002/trial.json").write_text(json.dumps(second))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cortado.planner.search.engine.compress_within", killed)
        reach(NET.make(), NET.task(), limits, time_limit="1 min", folder=tmp_path, resume=True)
    assert [one["recipe"] for one in notes(tmp_path)] == [first["recipe"], second["recipe"]]
    got = reach(NET.make(), NET.task(), limits, time_limit="1 min", folder=tmp_path, resume=True)
    assert [one.seconds for one in got.trials] == [20.0, 40.0], "a minute was spent: nothing more is tried"
    assert got.trials[0].size_bytes == first["size_bytes"]


def test_search_refuses_test_data_used_for_choosing(tmp_path):
    base = NET.task()
    task = dataclasses.replace(base, test=base.validation)
    with pytest.raises(BadTask, match="the test data are the validation data"):
        reach(NET.make(), task, ["score >= -1 %"], time_limit="1 min", folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_full_disk_ends_the_search_and_is_no_refused_trial(tmp_path, monkeypatch):
    def full(path, body):
        if "/trials/003/" in str(path):
            raise BadValue("file: it cannot be written (no space left).") from OSError(28, "no space left")
        write_whole(path, body)

    monkeypatch.setattr(sys.modules["cortado.engine.stage_files"], "write_whole", full)
    limits = [f"size <= {plain_size() // 6} B"]
    with pytest.raises(BadValue, match="no space left"):
        reach(NET.make(), NET.task(), limits, minimise="loss", time_limit="10 min", folder=tmp_path)


@pytest.mark.parametrize(
    ("limits", "minimise", "says"),
    [
        ([], "size", "a search needs at least one limit"),
        (["score >= -1 %"], "happiness", "must be one of size, latency, loss, got 'happiness'"),
        (["score >= -1 %"], "latency", "latency needs a runtime"),
        (["latency <= 1 ms in onnxruntime"], "latency", "Limit the score too"),
        (["score >= -1 %"], "loss", "Limit the size or the latency too"),
    ],
)
def test_goals_that_say_nothing_are_refused(tmp_path, limits, minimise, says):
    with pytest.raises(BadValue, match=says):
        reach(NET.make(), NET.task(), limits, minimise=minimise, folder=tmp_path)


@pytest.mark.parametrize("limit", ["size <= {} B", "latency <= 1000 ms in torch_eager"])
def test_without_a_limit_of_the_score_the_best_network_is_meant(tmp_path, limit, one_cut):
    """Without a score limit the smallest file is trivial."""
    text = limit.format(plain_size(TIMED) // 2)
    sought = {name: reach(TIMED.make(), TIMED.task(), [text], minimise=name, time_limit="1 ms", folder=tmp_path / name)
              for name in ("size", "loss")}  # fmt: skip
    assert sought["size"].best.recipe == sought["loss"].best.recipe and sought["size"].best.over[text] <= 0
    if "size" in limit:
        assert sought["size"].best.size_bytes > plain_size(TIMED) // 5


def test_times_of_another_runtime_are_taken_again(tmp_path, one_cut):
    """And a limit of time without a time is not kept."""
    timed = [Trial({"stages": []}, "a", 9, 1.0, None), Trial({"stages": []}, "b", 9, 1.0, 3.0)]
    wanted = SearchGoal(read_limits(["score >= -1 %", "latency <= 5 ms in onnxruntime"]), "latency", 1)
    assert wanted.best(timed).shape == "b" and wanted.times_over(timed[0]) == math.inf
    limits = ["latency <= 1000 ms in torch_eager", "score >= -100 %"]
    first = reach(TIMED.make(), TIMED.task(), limits, minimise="latency", time_limit="1 ms", folder=tmp_path)
    path = tmp_path / "trials/001/trial.json"
    noted = json.loads(path.read_text())
    assert noted["timed"] == "torch_eager, 1 threads" and noted["latency_ms"] == first.best.latency_ms
    path.write_text(json.dumps({**noted, "timed": "openvino, 1 threads", "latency_ms": 1e9}))
    again = reach(
        TIMED.make(), TIMED.task(), limits, minimise="latency", time_limit="1 ms", folder=tmp_path, resume=True
    )
    assert again.best.latency_ms < 1e6 and again.best.over[limits[0]] <= 0


def test_diverging_training_is_a_failed_trial(tmp_path, monkeypatch):
    def diverges(self, view, task):
        raise Diverged("tune: the loss of epoch 1 is nan.")

    monkeypatch.setattr(Finetune, "apply", diverges)
    limits = [f"size <= {plain_size() // 6} B"]
    got = reach(NET.make(), NET.task(), limits, minimise="loss", time_limit="10 min", folder=tmp_path)
    assert [bool(one.failed) for one in got.trials].count(True) == 1 and got.best.done


def test_score_in_another_unit_than_the_limit_is_refused(tmp_path):
    task = dataclasses.replace(
        NET.task(), metric=Metric("error", "m", lambda outputs, targets: outputs[:, 0], False, 1.0)
    )
    with pytest.raises(BadValue, match=r"is in %, but the metric of this task, error, is in m"):
        reach(NET.make(), task, ["score >= 50 %"], folder=tmp_path)


def test_allocation_report_names_every_choice_and_its_cost(found):
    least, most = found.sizes
    rows = reasons(found, (least * most) ** 0.5)
    assert [one.path for one in rows] == [one.path for one in found.choices]
    for one in rows:
        if one.other is not None:
            assert one.other.size_bytes <= one.taken.size_bytes and family(one.other.way) != family(one.taken.way)
    said = explained(found, (least * most) ** 0.5)
    assert all(one.path in said for one in rows) and "expected KL" in said
    assert explained(found, 1) == "Weights alone do not fit into 1 B."


def test_a_limit_above_the_plain_size_is_kept_by_something_smaller(tmp_path):
    got = reach(
        NET.make(), NET.task(), [f"size <= {2 * plain_size()} B"], minimise="loss", time_limit="1 ms", folder=tmp_path
    )
    assert got.report.met and got.report.stages


def test_network_without_weights_is_refused():
    with pytest.raises(BadNetwork, match="no weight of two or more axes"):
        size_accuracy_curve(nn.BatchNorm1d(4), nn.BatchNorm1d(4), NET.task())


def test_epochs_fit_the_time():
    assert epochs_for(10, 4) == 2.5 and epochs_for(0.5, 4) == 0 and epochs_for(1e9, 1) == 20
    trained = Trial(
        {
            "stages": [
                {"finetune": {"epochs": 1.5}},
                {"prune/rate_distortion": {"epochs": 1.0, "finish": 0.5}},
                "match_moments",
            ]
        }
    )
    assert trained.epochs == 3 and trained.trained and not Trial({"stages": [{"match_moments": {}}]}).trained
