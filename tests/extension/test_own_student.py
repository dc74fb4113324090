"""A user's small network as a student of a large one: trained, compressed, stored, bundled, resumed, exported."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

import cortado
from cortado.cli import main
from cortado.engine.job import read_job
from cortado.engine.recipe import read_recipe
from cortado.errors import WrongNetwork
from cortado.methods.distill.logits import DistillLogits
from cortado.runtimes.onnxruntime import Onnxruntime
from tests.extension.small_student import Small, large
from tests.fresh import fresh

OWN = "tests.extension.small_student"
JOB = f"""
network: {OWN}:large
task: digits
train: {{epochs: 2, lr: 2.0e-3}}
recipe:
  - student: {{network: "{OWN}:Small"}}
  - distill/logits: {{epochs: 3, lr: 1.0e-2}}
  - prune/channels: {{keep: 0.75, multiple: 1}}
  - quantize/weights: {{bits: 6}}
"""
LOADS = """
import sys
import torch
torch.set_num_threads(1)
from cortado.file.artifact import load
from tests.extension.small_student import Small
torch.save(load(sys.argv[1], Small)(torch.ones(3, 1, 8, 8)), sys.argv[2])
"""


def run(*words: object) -> str:
    """A command that succeeds; what it printed."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The bundle of the job, made once, beside the job."""
    folder = tmp_path_factory.mktemp("student")
    (folder / "job.yaml").write_text(JOB)
    run("compress", folder / "job.yaml", "--out", folder / "out")
    return folder / "out"


def test_one_short_file_and_a_short_job_are_enough():
    lines = Path(__file__).with_name("small_student.py").read_text(encoding="utf8").splitlines()
    assert len(lines) + len(JOB.splitlines()) <= 60


def test_the_report_compares_the_student_with_the_users_network(bundle):
    report = json.loads((bundle / "report.json").read_text())
    assert report["network"] == "Sequential"
    assert report["original_bytes"] == 4 * sum(one.numel() for one in large().parameters())
    counts = [sum(one.numel() for one in net.parameters()) for net in (large(), Small())]
    assert report["stages"][0]["parameters"] == counts[1] and not report["stages"][1]["parameters"]
    (line,) = [line for line in report["lines"] if line["what"] == "parameters"]
    assert line["original"] == counts[0] and 0 < line["compressed"] < counts[1]
    assert {row["path"] for row in report["layers"]} == set(Small().state_dict())
    assert {row["path"] for row in report["rounded"]["layers"]} == {"conv", "head"}
    assert all(row["own"] is None or row["own"] < 0.2 for row in report["rounded"]["layers"])
    text = run("report", bundle)
    assert f"1 student, {counts[1]:,} parameters" in text and "original            student" in text


def test_what_was_taught_has_learned(bundle):
    report = json.loads((bundle / "report.json").read_text())
    scores = [stage["score"] for stage in report["stages"]]
    assert scores[0] < 30 and scores[1] > 60 and report["test"]["compressed"] > 60


def test_its_file_opens_with_the_students_maker_in_a_fresh_process(bundle, tmp_path):
    child = fresh(LOADS, str(bundle / "net.cortado"), str(tmp_path / "outputs.pt"))
    assert child.returncode == 0, child.stderr
    again = cortado.load(bundle / "net.cortado", read_job(str(bundle)).architecture)
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), again(torch.ones(3, 1, 8, 8)))


def test_a_wrong_maker_is_refused_with_the_name_of_the_right_one(bundle, tmp_path):
    with pytest.raises(WrongNetwork, match=f"names {OWN}:Small"):
        cortado.load(bundle / "net.cortado", large)
    (tmp_path / "alone.cortado").write_bytes((bundle / "net.cortado").read_bytes())
    with pytest.raises(WrongNetwork, match=r"that is the student\.$"):
        cortado.load(tmp_path / "alone.cortado", large)


def test_every_command_knows_the_network_of_the_file(bundle, tmp_path):
    job = bundle.parent / "job.yaml"
    assert "confirmed" in run("verify", bundle)
    assert "Conv2d" in run("profile", bundle)
    assert "conv.weight" in run("inspect", bundle, "--job", job)
    for file in (bundle, bundle / "net.cortado"):
        assert "9 tensors" in run("unpack", file, job, tmp_path / "dense.safetensors")
    done = CliRunner().invoke(main, ["explain", str(bundle)])
    assert (
        done.exit_code == 1
        and "is a student or a cascade, whose layers the original network does not have" in done.output
    )


def test_run_script_of_the_bundle_predicts(bundle, tmp_path, monkeypatch):
    import numpy as np  # noqa: PLC0415

    np.save(tmp_path / "inputs.npy", np.ones((2, 1, 8, 8), dtype=np.float32))
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "inputs.npy"), str(tmp_path / "outputs.npy")])
    code = compile((bundle / "run.py").read_text(), "run.py", "exec")
    exec(code, {"__name__": "__main__", "__file__": str(bundle / "run.py")})
    found = torch.from_numpy(np.load(tmp_path / "outputs.npy"))
    wanted = cortado.load(bundle / "net.cortado", Small)(torch.ones(2, 1, 8, 8))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("killed_at", [1, 2])
def test_killed_run_ends_with_the_same_file(bundle, tmp_path, monkeypatch, killed_at):
    """Interrupted after the student came, or while it learns; without the later stages, then resumed."""
    job = read_job(str(bundle.parent / "job.yaml"))
    task = job.make_task()
    original = job.original_again(task, bundle)
    apply, calls = DistillLogits.apply, []

    def stopped(self, view, task):
        calls.append(self)
        if len(calls) < killed_at:
            apply(self, view, task)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DistillLogits, "apply", stopped)
        with pytest.raises(cortado.CortadoError, match="1 finished stages are kept"):
            cortado.compress(original, task, job.recipe, folder=tmp_path)
    _, report = cortado.compress(original, task, job.recipe, folder=tmp_path, resume=True)
    assert (tmp_path / "stages/04.cortado").read_bytes() == (bundle / "net.cortado").read_bytes()
    assert not any("from another run" in warning for warning in report.warnings)


@pytest.mark.skipif(not Onnxruntime().available(), reason="onnxruntime is not installed")
def test_it_is_exported_to_onnx(bundle, tmp_path):
    assert "same top-1 100.00 %" in run("export", bundle, "--out", tmp_path / "onnx")
    assert (tmp_path / "onnx/net.onnx").exists()


def test_a_search_draws_the_students_width(bundle, tmp_path):
    pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")
    job = read_job(str(bundle.parent / "job.yaml"))
    task = job.make_task()
    makers = [f"{OWN}:Small", "digits_net"]
    recipe = [{"student": {"network": makers}}, {"distill/logits": {"epochs": 0.25}}]
    found = cortado.search(job.original_again(task, bundle), task, recipe, ["score >= 1 %"], trials=3, folder=tmp_path)
    assert found.best.point["1 student network"] in makers and all(trial.done for trial in found.trials)


TAUGHT = f"""
network: {OWN}:Small
task: digits
train: {{epochs: 2, lr: 1.0e-2, objectives: [task, logits], teacher: &big {{network: "{OWN}:large", weights: big.safetensors}}}}
recipe:
  - quantize/weights: {{bits: 4}}
  - distill/logits: {{epochs: 1, lr: 1.0e-3, teacher: *big}}
"""


def test_a_job_may_bring_the_small_network_and_name_a_teacher_with_weights(bundle, tmp_path):
    (kept,) = bundle.glob("original_*.safetensors")
    (tmp_path / "big.safetensors").write_bytes(kept.read_bytes())
    (tmp_path / "taught.yaml").write_text(TAUGHT)
    run("compress", tmp_path / "taught.yaml", "--out", tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["network"] == "Small" and report["stages"][-1]["curves"].keys() == {"task", "logits"}
    assert any("weights of big.safetensors, checksum" in note for note in report["stages"][1]["notes"])
    # The teacher is not needed any more; the weights' path in the recipe leads from the bundle to them.
    recipe = yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())
    weights = tmp_path / "out" / recipe["stages"][1]["distill/logits"]["teacher"]["weights"]
    assert weights.read_bytes() == kept.read_bytes()
    assert read_recipe(tmp_path / "out/recipe.yaml").stages[1].teacher["weights"] == str(weights)
    weights.unlink()
    assert "confirmed" in run("verify", tmp_path / "out")
