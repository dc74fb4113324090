"""compress: stages one after another, measured, kept, resumed; and the test result on data used once."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from cortado.engine.bundle import check_bundle, write_bundle
from cortado.engine.compress import compress
from cortado.engine.recipe import read_recipe
from cortado.errors import BadFile, NothingChanged, Stopped
from cortado.file.artifact import load
from cortado.methods.factorize.jaderberg import FactorizeJaderberg
from cortado.methods.factorize.nonlinear import FactorizeNonlinear
from cortado.methods.finetune import Finetune
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method
from cortado.methods.needs import Leaves
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.methods.release import Release
from cortado.network.compare.rounded import rounded_layers
from cortado.parts.forms.dense import Dense
from cortado.report.pages.terminal import report_text
from cortado.report.report import Report, paired_interval, read_report
from cortado.task.measure import mean_score
from cortado.task.task import Data, Metric, Task
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]
STAGES = (PruneWeights(keep=0.5), Finetune(epochs=0.5), QuantizeWeights(bits=5))


class Interrupting(Finetune):
    """Stops as a user would, with the keyboard."""

    def apply(self, view, task):
        raise KeyboardInterrupt


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return list(states[0]) == list(states[1]) and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.fixture(scope="module")
def result():
    return compress(NET.make(), NET.task(), STAGES, limits=["size <= 10 KB", "score >= -90 %"])


def test_report_has_a_row_for_every_stage(result):
    small, report = result
    assert [stage.name for stage in report.stages] == ["prune/weights", "finetune", "quantize/weights"]
    assert [stage.nonzero for stage in report.stages][:2] == pytest.approx([0.5, 0.5], abs=0.01)
    assert report.stages[0].knobs["keep"] == 0.5
    assert report.met and all(line.met for line in report.lines)
    assert report.original_bytes == sum(v.numel() * v.element_size() for v in NET.make().state_dict().values())


def test_a_machine_without_kernels_is_a_warning_of_the_report(monkeypatch, result):
    monkeypatch.setattr("cortado.engine.compress.missing_kernels", lambda: "native: no kernel, for a reason.")
    report = compress(NET.make(), NET.task(), STAGES[:1])[1]
    assert "native: no kernel, for a reason." in report.warnings and "for a reason" in report_text(report)
    assert not any("kernel" in one for one in result[1].warnings)


def test_scores_are_those_of_the_networks_and_of_no_other_data(result):
    small, report = result
    task, original = NET.task(), NET.make()
    assert report.stages[-1].score == pytest.approx(mean_score(small, task.validation, task.metric))
    assert report.test.original == pytest.approx(mean_score(original, task.test, task.metric))
    assert report.test.compressed == pytest.approx(mean_score(small, task.test, task.metric))
    assert report.test.samples == 32


def test_report_comes_back_from_json(result, tmp_path):
    _, report = result
    (tmp_path / "report.json").write_text(report.as_json())
    again = read_report(tmp_path / "report.json")
    assert isinstance(again, Report) and again.as_json() == report.as_json()


def test_report_shows_the_rounding_error_on_validation_data():
    small, report = compress(NET.make(), NET.task(), "quantize/weights bits=4 | quantize/activations bits=4")
    assert report.rounded == rounded_layers(NET.make(), small, NET.task().validation)
    assert any(layer.activations for layer in report.rounded.layers) and report.rounded.output > 0
    assert compress(NET.make(), NET.task(), "prune/weights keep=0.5")[1].rounded is None


def test_limits_missed_are_said_to_be_missed():
    _, report = compress(NET.make(), NET.task(), "quantize/weights", limits=["size <= 10 B", "score >= +0.5 %"])
    assert not report.met
    assert [line.met for line in report.lines][0] is False


@pytest.mark.parametrize(("limit", "met"), [("score >= -30", True), ("score >= +50", False)])
def test_lower_is_better_scores_count_the_other_way(limit, met):
    wrong = Metric(
        "error", "%", lambda outputs, targets: (outputs.argmax(1) != targets).float(), higher_is_better=False
    )
    base = NET.task()
    task = Task(base.train, base.validation, base.test, metric=wrong)
    _, report = compress(NET.make(), task, "quantize/weights", limits=[limit])
    assert report.met is met


LOSSY = (
    PruneWeights(keep=0.5),
    FactorizeJaderberg(keep=0.3),
    FactorizeNonlinear(keep=0.4),
)
"""The last two are fitted to the layers' outputs: least squares leave less variance than there was."""


@pytest.mark.parametrize("method", LOSSY, ids=lambda one: one.name())
def test_moments_are_matched_after_each_lossy_stage(method):
    by_hand, _ = compress(NET.make(), NET.task(), [method, MatchMoments()])
    by_itself, _ = compress(NET.make(), NET.task(), [method])
    without, _ = compress(NET.make(), NET.task(), {"match_moments": False, "stages": [method]})
    assert not same(by_itself, without)
    example = NET.task().validation.inputs
    torch.testing.assert_close(by_hand(example), by_itself(example), rtol=1e-4, atol=1e-5)


def test_interrupted_run_continues_and_ends_alike(tmp_path):
    whole, full = compress(NET.make(), NET.task(), STAGES)
    stages = (*STAGES[:2], Interrupting())
    with pytest.raises(
        Stopped, match=rf"interrupted in stage 3. 2 finished stages are kept in {tmp_path}; --resume continues"
    ):
        compress(NET.make(), NET.task(), stages, folder=tmp_path)
    assert sorted(path.name for path in (tmp_path / "stages").iterdir()) == [
        "01.cortado",
        "01.json",
        "02.cortado",
        "02.json",
    ]
    # The rest of the recipe belongs to what a stage's key stands for: another end is another run.
    _, other = compress(NET.make(), NET.task(), STAGES, folder=tmp_path, resume=True)
    assert any("from another run" in warning for warning in other.warnings)
    (tmp_path / "stages" / "03.json").unlink()
    again, report = compress(NET.make(), NET.task(), STAGES, folder=tmp_path, resume=True)
    assert same(again, whole) and not report.warnings
    assert [row.size_bytes for row in report.stages] == [row.size_bytes for row in full.stages]
    assert report.stages[0].seconds == other.stages[0].seconds


@pytest.mark.parametrize("finished", [1, 2, 3])
def test_resumed_run_matches_the_moments_that_the_whole_run_matches(tmp_path, finished):
    """What comes before the last lossy stage, not what comes before the last stage of all."""
    stages = (*STAGES[:1], Finetune(epochs=2, lr=0.02), Release(), MatchMoments())
    whole, told = compress(NET.make(), NET.task(), stages, folder=tmp_path)
    for number in range(finished + 1, len(stages) + 1):
        (tmp_path / "stages" / f"{number:02}.json").unlink()
    again, report = compress(NET.make(), NET.task(), stages, folder=tmp_path, resume=True)
    assert same(again, whole) and report.warnings == told.warnings


@pytest.mark.parametrize("other", ["seed", "batch", "train", "weights"])
def test_kept_stages_of_another_run_are_not_used(tmp_path, other):
    """One thing alone is another: whatever a stage depends on makes another run."""
    compress(NET.make(), NET.task(), STAGES[:1], folder=tmp_path)
    network, task = NET.make(), NET.task()
    if other == "weights":
        with torch.no_grad():
            network.head.weight.mul_(2)
    else:
        mine = {"seed": 9, "batch": 8, "train": Data(task.train.inputs + 0.5, task.train.targets)}
        task = dataclasses.replace(task, **{other: mine[other]})
    _, report = compress(network, task, STAGES[:1], folder=tmp_path, resume=True)
    assert any("from another run" in warning for warning in report.warnings)


def test_damaged_kept_stage_is_an_error(tmp_path):
    compress(NET.make(), NET.task(), STAGES[:1], folder=tmp_path)
    (tmp_path / "stages" / "01.json").write_text("{")
    with pytest.raises(BadFile, match="01.json is damaged"):
        compress(NET.make(), NET.task(), STAGES[:1], folder=tmp_path, resume=True)


def test_bundle_holds_what_was_measured_and_notices_changes(result, tmp_path):
    small, report = result
    folder = write_bundle(tmp_path / "bundle", small, NET.make, report, {"network": "tiny"})
    assert set(check_bundle(folder)) == {path.name for path in folder.iterdir()} - {"checksums.txt"}
    again = load(folder / "net.cortado", NET.make)
    assert same(again, small)
    assert (folder / "net.cortado").stat().st_size == report.size_bytes
    assert json.loads((folder / "report.json").read_text())["seed"] == 0
    body = bytearray((folder / "net.cortado").read_bytes())
    body[20] ^= 1
    (folder / "net.cortado").write_bytes(bytes(body))
    with pytest.raises(BadFile, match="net.cortado was altered since the bundle was made"):
        check_bundle(folder)
    (folder / "net.cortado").unlink()
    with pytest.raises(BadFile, match="'net.cortado' is missing"):
        check_bundle(folder)


def test_checksums_that_point_outside_are_refused(tmp_path):
    (tmp_path / "checksums.txt").write_text("0" * 64 + "  ../secret\n")
    with pytest.raises(BadFile, match="is missing from"):
        check_bundle(tmp_path)


def test_interval_is_that_of_paired_differences():
    one, two = torch.rand(400), torch.rand(400)
    compared = paired_interval(one, two, 100.0)
    difference = (two - one).double() * 100
    assert compared.difference == pytest.approx(float(difference.mean()))
    assert (compared.high - compared.low) / 2 == pytest.approx(1.96 * float(difference.std()) / 20)
    assert paired_interval(one[:29], two[:29], 100.0).low is None


class Grows(Method):
    """Sets every other weight to noise, which takes more bytes than zeros."""

    lossy = True
    leaves = (Leaves.FLOATS,)

    def apply(self, view, task):
        for weight in view.weights("*"):
            noise = torch.randn(weight.shape, generator=task.generator())
            weight.map_values(lambda values, noise=noise: Dense(noise))


class Trains(Grows):
    """Does the same by training."""

    trains = True


@pytest.mark.parametrize(("kind", "noted"), [(Grows, True), (Trains, False)])
def test_a_file_that_grows_is_noted_where_more_than_floats_changed(kind, noted):
    _, report = compress(NET.make(), NET.task(), [PruneWeights(keep=0.2), Release(), kind()])
    assert report.stages[2].size_bytes > 1.02 * report.stages[1].size_bytes
    assert any("The file grows" in note for note in report.stages[2].notes) == noted


def test_frozen_parameters_of_the_user_do_not_learn():
    network = NET.make()
    network.stem.weight.requires_grad_(False)
    small, _ = compress(network, NET.task(), [Finetune(epochs=0.5, lr=0.01)])
    assert torch.equal(small.stem.weight, network.stem.weight)
    assert not torch.equal(small.head.weight, network.head.weight)


def test_fully_frozen_network_says_that_nothing_can_learn():
    from cortado.errors import BadNetwork

    network = NET.make().requires_grad_(False)
    with pytest.raises(BadNetwork, match="the network has no trainable parameter"):
        compress(network, NET.task(), "finetune")
    small, _ = compress(network, NET.task(), "quantize/weights")
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_second_stage_that_changes_nothing_names_itself():
    with pytest.raises(
        NothingChanged, match=r"stage 2 \(quantize/weights\): it needs a weight that does not lie on this grid yet"
    ):
        compress(
            NET.make(),
            NET.task(),
            {"match_moments": False, "stages": [QuantizeWeights(clip="range"), QuantizeWeights(clip="range")]},
        )


def test_match_as_a_stage_of_its_own_knows_which_channels_are_left(tmp_path):
    """Also when the run is interrupted between the cut and the match."""
    cut = PruneChannels(keep=0.5)
    by_itself, _ = compress(NET.make(), NET.task(), [cut])
    by_hand, _ = compress(NET.make(), NET.task(), [cut, MatchMoments()], folder=tmp_path)
    example = NET.task().validation.inputs
    torch.testing.assert_close(by_hand(example), by_itself(example), rtol=1e-4, atol=1e-5)
    without, _ = compress(NET.make(), NET.task(), {"match_moments": False, "stages": [cut]})
    assert not torch.allclose(without(example), by_itself(example), rtol=1e-2)
    (tmp_path / "stages" / "02.json").unlink()
    again, _ = compress(NET.make(), NET.task(), [cut, MatchMoments()], folder=tmp_path, resume=True)
    assert same(again, by_hand)


def test_repeat_is_its_stages_written_out(tmp_path):
    """Row by row, with moments matched after each round; interrupted within a round, it continues there."""
    cut = PruneChannels(keep=0.7)
    rounds = [{"repeat": {"times": 2, "do": [cut, {"finetune": {"epochs": [0.5, 0.25]}}]}}, QuantizeWeights(bits=5)]
    written = (cut, Finetune(epochs=0.5), cut, Finetune(epochs=0.25), QuantizeWeights(bits=5))
    whole, report = compress(NET.make(), NET.task(), written)
    once, found = compress(NET.make(), NET.task(), rounds, folder=tmp_path)
    assert same(once, whole)
    assert [stage.round for stage in found.stages] == [*["round 1 of 2"] * 2, *["round 2 of 2"] * 2, ""]
    assert [stage.size_bytes for stage in found.stages] == [stage.size_bytes for stage in report.stages]
    assert "3 prune/channels, round 2 of 2" in report_text(found)
    assert read_recipe(found.recipe).rounds == tuple(stage.round for stage in found.stages)
    for number in (4, 5):
        (tmp_path / "stages" / f"{number:02}.json").unlink()
    again, resumed = compress(NET.make(), NET.task(), rounds, folder=tmp_path, resume=True)
    assert same(again, whole) and not resumed.warnings
    assert resumed.stages[2].seconds == found.stages[2].seconds
