"""Cascades in a search: what is proposed next, what is resumed, and a bundle that verifies."""

import json

import pytest
import torch
from torch import nn

import cortado
from cortado.engine.recipe import read_recipe
from cortado.errors import BadNetwork, BadRecipe, BadValue
from cortado.methods.conditional.thresholds import ConditionalThresholds
from cortado.nets.cascade import Cascade
from cortado.network.profile.profile import profile
from cortado.planner.search.cascades import Cascades, cascades_for, idle_in, is_cascade
from cortado.planner.search.goal import GoalSearch, reach
from cortado.planner.search.trials import SearchGoal, Trial
from cortado.runtimes.runtime import runtime_by_name
from cortado.runtimes.stopwatch import Stopwatch
from cortado.task.limits import read_limits
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import CLASSES
from tests.test_cli import cortado as command
from tests.test_cli import here

__all__ = ["here"]
SCORE = "score >= -1 %"
SMALL, LARGE = "tests.planner.search.test_cascades:small", "tests.planner.search.test_cascades:large"


class Halves(nn.Module):
    """Logits (N, 4) that tell the signs of the sums of both halves of 12 numbers, which is the class; `deep` takes longer."""

    def __init__(self, deep: int) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(12, 16), nn.Linear(16, CLASSES)
        self.deep = nn.ModuleList(nn.Linear(16, 16) for _ in range(deep))
        first, second = (torch.cat([one, 1 - one]) for one in (torch.ones(6), torch.zeros(6)))
        with torch.no_grad():
            for layer in (self.enter, self.head, *self.deep):
                layer.weight.zero_()
                layer.bias.zero_()
            for unit, row in enumerate((first, -first, second, -second)):
                self.enter.weight[unit] = row
            for layer in self.deep:
                layer.weight.copy_(torch.eye(16))
            for place in range(CLASSES):
                self.head.weight[place, 0 if place > 1 else 1] = 2.0
                self.head.weight[place, 2 if place % 2 else 3] = 2.0

    def forward(self, inputs):
        activation = torch.relu(self.enter(inputs))
        for layer in self.deep:
            activation = torch.relu(layer(activation))
        return self.head(activation)


def small():
    return Halves(0).eval()


def large():
    return Halves(24).eval()


def task(wrong=0.05):
    """600 samples to choose on, some with the class of another: nobody knows those by heart."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(1000, 12, generator=generator)
    # Sums away from zero, so that rounding changes no class.
    inputs = (inputs.view(-1, 2, 6) + 0.3 * inputs.view(-1, 2, 6).sum(2, keepdim=True).sign()).view(-1, 12)
    targets = (inputs[:, :6].sum(1) > 0).long() * 2 + (inputs[:, 6:].sum(1) > 0).long()
    targets = torch.where(torch.rand(1000, generator=generator) < wrong, (targets + 1) % CLASSES, targets)
    parts = [Data(inputs[a:b], targets[a:b]) for a, b in ((0, 200), (200, 800), (800, 1000))]
    return Task(*parts, batch=50, name="halves")


def wanted(*limits, minimise="latency"):
    return SearchGoal(read_limits(limits), minimise, 1, "%")


def outcome(number, found, score=0.0, latency=1.0, time_over=0.0, failed=""):
    over = {SCORE: score, "latency <= 1 ms in onnxruntime": time_over}
    return Trial(found.recipe, found.shape, 0 if failed else 100, 90.0, latency, over, failed=failed, number=number)


def lose(found):
    return found.recipe["stages"][-1]["conditional/thresholds"]["lose"]


def names(found):
    return [next(iter(stage)) for stage in found.recipe["stages"]]


def test_integers_come_first_then_floats_then_without_members_that_do_not_pay():
    ideas = Cascades(wanted(SCORE), ("resnet_8", {"network": "resnet_20", "scale": (1.0, 2.0)}), 1.0)
    first = ideas.next([])
    one = outcome(1, first)
    assert names(first) == ["conditional/cascade", "quantize/weights", "quantize/activations", "conditional/thresholds"]
    assert (lose(first), first.shape) == (1.0, "cascade of resnet_8 and resnet_20, integers, lose=1")
    second = ideas.next([one])
    assert names(second) == ["conditional/cascade", "conditional/thresholds"]
    two = outcome(2, second, latency=2.0)
    ideas.idle[1] = [0]
    third = ideas.next([one, two])
    assert "integers" in third.shape and "resnet_8" not in str(third.recipe)
    assert third.recipe["stages"][0]["conditional/cascade"]["members"] == [
        {"network": "resnet_20", "scale": [1.0, 2.0]}
    ]
    assert read_recipe(third.recipe).stages[-1] == ConditionalThresholds(lose=1.0)
    ideas.idle[1] = [0, 1]
    assert "resnet_8" in ideas.next([one, two]).shape, "where none pays other thresholds are tried"


def test_each_member_alone_is_tried_where_all_together_are_refused():
    """Several answers need more samples for the same certainty; after a success its thresholds are tried on."""
    ideas, trials = Cascades(wanted(SCORE), ("resnet_8", "resnet_20"), 1.0), []
    while (found := ideas.next(trials)) is not None:
        trials.append(outcome(len(trials) + 1, found, failed="too few"))
    assert [one.shape for one in trials] == [
        "cascade of resnet_8 and resnet_20, integers, lose=1", "cascade of resnet_8, integers, lose=1",
        "cascade of resnet_20, integers, lose=1", "cascade of resnet_8 and resnet_20, lose=1",
    ]  # fmt: skip
    good = outcome(2, trials[1], -0.1)
    floats = ideas.next([trials[0], good])
    assert floats.shape == "cascade of resnet_8, lose=1"
    slower = outcome(3, floats, -0.1, latency=2.0)
    assert ideas.next([trials[0], good, slower]).shape == "cascade of resnet_8, integers, lose=2"


@pytest.mark.parametrize("most", [0.7, 1.0, 1.9, 3.0, 7.0])
def test_loosest_thresholds_that_keep_the_score_are_bisected(most):
    ideas, trials = Cascades(wanted(SCORE), ("resnet_8",), 1.0), []
    while (found := ideas.next(trials)) is not None:
        whole = "integers" in found.shape
        kept = whole and lose(found) <= most
        trials.append(outcome(len(trials) + 1, found, -0.1 if kept else 0.1, 2.0 / (1 + lose(found)), failed=""))
    kept = [lose(one) for one in trials if one.keeps_all]
    assert most / 2 <= max(kept) <= most and len(trials) <= 6


@pytest.mark.parametrize("least", [0.3, 1.0, 2.5])
def test_strictest_thresholds_that_keep_the_time_are_bisected(least):
    ideas, trials = Cascades(wanted("latency <= 1 ms in onnxruntime", minimise="loss"), ("resnet_8",)), []
    while (found := ideas.next(trials)) is not None:
        over = -0.1 if lose(found) >= least and "integers" in found.shape else 0.1
        trials.append(outcome(len(trials) + 1, found, 0.0, 1.0 + over, over))
    kept = [lose(one) for one in trials if one.keeps_all]
    assert least <= min(kept) <= 2 * least and len(trials) <= 6


def test_looser_thresholds_stop_where_they_save_nothing():
    ideas = Cascades(wanted(SCORE), ("resnet_8",), 1.0)
    trials = []
    while (found := ideas.next(trials)) is not None:
        trials.append(outcome(len(trials) + 1, found, -0.1, 1.0 if "integers" in found.shape else 2.0))
    assert [lose(one) for one in trials] == [1.0, 1.0, 2.0]


def test_harm_is_what_the_score_limit_allows():
    made = task()
    network = large()
    for limit, allowed in (("score >= -1.5 %", 1.5), ("score >= 90 %", None), ("latency <= 1 ms in onnxruntime", 1.0)):
        goal = wanted(limit, minimise="latency" if "score" in limit else "loss")
        found = cascades_for(goal, ["resnet_8"], network, made, "")
        with torch.no_grad():
            right = (network(made.validation.inputs).argmax(1) == made.validation.targets).float().mean()
        assert found.lose == pytest.approx(100 * float(right) - 90 if allowed is None else allowed, abs=1e-4)


def test_nothing_is_proposed_without_members_or_without_a_clock():
    assert Cascades(wanted(SCORE)).next([]) is None
    bytes_only = Cascades(wanted(SCORE, minimise="size"), ("resnet_8",))
    assert bytes_only.next([]) is None and "latency does not count" in bytes_only.note([])
    failed = outcome(1, Cascades(wanted(SCORE), ("resnet_8",)).next([]), failed="by heart")
    assert "No cascade was possible. by heart" in Cascades(wanted(SCORE), ("resnet_8",)).note([failed])


def test_members_nobody_stops_at_do_not_pay():
    network = Cascade([small(), large()], [nn.Identity()] * 2).eval()
    assert idle_in(network, network, task()) == [0]
    network.sure.thresholds.fill_(0.0)
    assert idle_in(network, network, task()) == []


def test_paths_are_timed_on_different_inputs(monkeypatch):
    """One path is timed on the example alone, several on as many inputs as fit the seconds, the original in turns."""
    made, seen = task(), []

    def streams(variants, seconds):
        outputs = [torch.cat([torch.as_tensor(call()) for call in calls]) for calls in variants]
        seen.append(outputs)
        return torch.tensor([[4.0], [2.0], [4.0]]).expand(1, 3, len(variants[0])).numpy()

    monkeypatch.setattr("cortado.runtimes.stopwatch.streamed", streams)
    watch = Stopwatch(large(), made, runtime_by_name("onnxruntime"), seconds=0.1)
    assert watch.ms(small()) > 0 and not seen
    network = Cascade([small(), large()], [nn.Identity()] * 2).eval()
    network.sure.thresholds.fill_(0.9)
    assert watch.ms(network) == pytest.approx(watch.original_ms / 2)
    ((first, own, again),) = seen
    assert torch.equal(first, again) and len(own) >= 50
    with torch.no_grad():
        assert torch.allclose(own, network(made.validation.inputs[: len(own)]), atol=1e-4)


def counted_ms(watch, network):
    """Return the multiply-adds that samples take on average, in place of milliseconds."""
    inputs = watch.task.validation.inputs
    return profile(network, inputs[:1], inputs).expected_multiply_adds().value


@pytest.fixture
def few(monkeypatch):
    """The safe trial and the cascades alone, on a clock that counts multiply-adds: a busy machine decides nothing."""
    monkeypatch.setattr(Stopwatch, "ms", counted_ms)
    monkeypatch.setattr("cortado.runtimes.measured.rivals", lambda: ())
    monkeypatch.setattr(GoalSearch, "enough", lambda self: len(self.trials) > 2)


def asked(folder, **more):
    return reach(
        large(), more.pop("task", task()), ["score >= -1 %"], minimise="latency", time_limit="5 min", folder=folder,
        runtimes=["onnxruntime"], members=[SMALL], **more,
    )  # fmt: skip


def test_a_cascade_is_found_killed_and_resumed(tmp_path, few, monkeypatch):
    def killed(self, view, task):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(BaseException, match="interrupted"):
        patch.setattr(ConditionalThresholds, "apply", killed)
        asked(tmp_path)
    begun = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("trials/*/trial.json"))]
    assert [bool(one["size_bytes"]) for one in begun] == [True, False]
    got = asked(tmp_path, resume=True)
    assert [one.recipe for one in got.trials[:2]] == [one["recipe"] for one in begun]
    assert is_cascade(got.best) and got.report.met and got.best.keeps_all and not got.notes
    assert got.best.latency_ms < got.trials[0].latency_ms
    path = tmp_path / "net.cortado"
    path.write_bytes(got.made.body)
    again = cortado.load(path, original=got.architecture(large()))
    inputs = task().test.inputs
    assert torch.equal(again(inputs), got.network(inputs))


def test_data_known_by_heart_are_said_to_hinder(tmp_path, few):
    got = asked(tmp_path, task=task(wrong=0.0))
    assert not is_cascade(got.best) and "No cascade was possible." in got.text() and "by heart" in got.notes[0]


@pytest.mark.parametrize(
    ("members", "error", "says"),
    [("resnet_8", BadValue, "no list of names"), ([small], BadValue, "no list of names"),
     (["nowhere"], BadRecipe, "nowhere"), ([{"network": LARGE, "weights": "no.pt"}], BadNetwork, "no.pt")],
)  # fmt: skip
def test_members_that_cannot_be_are_refused_before_the_search(tmp_path, members, error, says):
    with pytest.raises(error, match=says):
        reach(large(), task(), [SCORE], minimise="latency", runtimes=["torch_eager"], folder=tmp_path, members=members)
    assert not (tmp_path / "trials").exists()


def test_bundle_of_a_job_with_members_verifies(here, few):
    job = f"network: {LARGE}\ntask: tests.planner.search.test_cascades:task\nmembers: [{{network: {SMALL}, scale: 2.0}}]\n"
    (here / "own.yaml").write_text(job)
    done = command(
        "compress",
        "own.yaml",
        "--limit",
        "score >= -1 %",
        "--minimise",
        "latency",
        "--measure-in",
        "onnxruntime",
        "--out",
        "out",
    )
    assert done.exit_code == 0 and "conditional/cascade" in done.output, done.output
    assert read_recipe(here / "out/recipe.yaml").stages[0].name() == "conditional/cascade"
    again = command("verify", "out")
    assert "onnxruntime/net.onnx" in again.output and "NO" not in again.output.split("ms")[0], again.output


def test_size_counts_too(tmp_path, few):
    """The tail of stages that shrink the rest of the file comes before the thresholds."""
    limits = ["score >= -1 %", "size <= 1 MB"]
    got = reach(large(), task(), limits, minimise="latency", folder=tmp_path, runtimes=["onnxruntime"], members=[SMALL])
    assert all(
        next(iter(one.recipe["stages"][-1])) == "conditional/thresholds" for one in got.trials if is_cascade(one)
    )
    assert got.best.keeps_all
