"""The command line of the planner: plan, compress without a recipe, verify."""

import json
import shutil

import pytest
from safetensors.torch import save_file

from cortado.engine.bundle import check_bundle, write_bundle
from cortado.file.artifact import load
from cortado.report.report import read_report
from tests.laws.tiny_nets import BY_NAME
from tests.test_cli import cortado, here

__all__ = ["here"]


@pytest.fixture
def bundle(here):
    """A bundle made for limits alone."""
    done = cortado("compress", "tiny_job:make", "--limit", "score >= -100 %", "--time-limit", "1 ms", "--out", "out")
    assert done.exit_code == 0, done.output
    assert "<- taken" in done.output and "bundle: out" in done.output
    return here / "out"


def test_plan_tells_before_any_training(here):
    done = cortado("plan", "tiny_job:make", "--limit", "score >= -100 %")
    assert done.exit_code == 0, done.output
    assert "nothing trained" in done.output and "score >= -100 %: the smallest file" in done.output
    assert "Helps size:" in done.output and "all together" in done.output


def test_verify_confirms_a_fresh_bundle(bundle):
    done = cortado("verify", "out")
    assert done.exit_code == 0, done.output
    assert "out: confirmed." in done.output and done.output.count("yes") == 3


def test_bundle_of_a_job_with_weights_is_measured_again_wherever_it_lies(here):
    """By whoever has the folder alone: not the weights' file, and not the job's."""
    save_file(BY_NAME["mlp"].make().state_dict(), here / "own.safetensors")
    job = "network: tiny_job:network\ntask: tiny_job:task\nweights: own.safetensors\n"
    (here / "own.yaml").write_text(job)
    done = cortado("compress", "own.yaml", "--recipe", "quantize/weights bits=4", "--out", "out")
    assert done.exit_code == 0, done.output
    (here / "own.safetensors").unlink()
    (here / "own.yaml").unlink()
    shutil.move(here / "out", here / "elsewhere")
    done = cortado("verify", "elsewhere")
    assert done.exit_code == 0 and "confirmed" in done.output, done.output
    next((here / "elsewhere").glob("original_*")).unlink()
    done = cortado("verify", "elsewhere")
    assert done.exit_code == 1 and "Restore the file that compress wrote there" in done.output


def test_verify_refuses_a_tampered_file(bundle):
    body = bytearray((bundle / "net.cortado").read_bytes())
    body[-1] ^= 1
    (bundle / "net.cortado").write_bytes(body)
    done = cortado("verify", "out")
    assert done.exit_code == 1 and "net.cortado was altered" in done.output


def test_verify_does_not_confirm_what_is_claimed_too_well(bundle):
    describe = json.loads((bundle / "report.json").read_text())
    describe["test"]["compressed"] += 5
    (bundle / "better.json").write_text(json.dumps(describe))
    network = load(bundle / "net.cortado", BY_NAME["mlp"].maker)
    job = {"network": "tiny_job:network", "task": "tiny_job:task"}
    write_bundle(bundle, network, BY_NAME["mlp"].make(), read_report(bundle / "better.json"), job)
    check_bundle(bundle)
    done = cortado("verify", "out")
    assert done.exit_code == 3 and "not confirmed: accuracy, compressed" in done.output, done.output


def test_goal_missed_is_exit_status_three_with_a_way_out(here):
    done = cortado("compress", "tiny_job:make", "--limit", "size <= 10 B", "--minimise", "loss", "--time-limit", "1 ms")
    assert done.exit_code == 3 and "Missed: size <= 10 B." in done.output, done.output
    shutil.rmtree(here / "runs")


def test_plan_times_cuts_in_the_runtime_of_a_limit(here):
    done = cortado("plan", "tiny_job:make", "--limit", "latency <= 100 ms @ onnxruntime", "--time-limit", "1 s")
    assert done.exit_code == 0, done.output
    assert "one sample in onnxruntime" in done.output and "no cut, integers" in done.output
    assert "  met" in done.output and "Does not help latency:" in done.output


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_plan_shows_the_kernels_of_its_mix_as_a_report_does(here, runtime):
    limits = ("--limit", "size <= 600 B", "--time-limit", "1 s", "--measure-in", runtime)
    done = cortado("plan", "tiny_job:make", *limits)
    assert done.exit_code == 0, done.output
    lines = done.output.split("by kernel:\n\n")[1].splitlines()
    assert lines[0].split()[:3] == ["layers", "in", runtime] and lines[0].endswith("why not faster")
    found = 0
    for line in lines[2 : lines.index("")]:
        found += 1 + int(line.split(" and ")[1].split()[0] if " more" in line else 0)
    assert found == 2, done.output


def test_plan_says_that_no_mix_is_so_small(here):
    done = cortado("plan", "tiny_job:make", "--limit", "size <= 5 B", "--time-limit", "1 s", "--measure-in", "openvino")
    assert done.exit_code == 0 and "No mix is as small as 5 B" in done.output, done.output


def test_fastest_network_is_compressed_and_timed(here):
    done = cortado(
        "compress", "tiny_job:make", "--limit", "score >= -100 %", "--minimise", "latency", "--measure-in", "onnxruntime",
        "--time-limit", "1 ms", "--out", "fast",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "<- taken" in done.output and (here / "fast" / "onnxruntime").is_dir()


def test_plan_explains_weight_by_weight(here):
    done = cortado("plan", "tiny_job:make", "--limit", "score >= -100 %", "--explain")
    assert done.exit_code == 0 and "Form of each weight in a file of" in done.output, done.output
    assert all(
        f"\n{name} " in done.output for name, value in BY_NAME["mlp"].make().named_parameters() if value.dim() > 1
    )


def test_limit_of_time_leaves_a_file_for_its_runtime_in_the_bundle(here):
    recipe = ("--recipe", "prune/channels keep=0.5")
    done = cortado(
        "compress", "tiny_job:make", *recipe, "--limit", "latency<=900ms@onnxruntime:1thread", "--out", "out"
    )
    assert done.exit_code == 0, done.output
    assert "onnxruntime/net.onnx" in check_bundle(here / "out") and "onnxruntime" in (here / "out/run.py").read_text()
    again = cortado("verify", "out")
    assert again.exit_code == 0 and "onnxruntime/net.onnx" in again.output, again.output


@pytest.mark.parametrize("more", [("--time-limit", "1 min"), ("--minimise", "latency")])
def test_recipe_leaves_the_planner_nothing_to_do(here, more):
    done = cortado("compress", "tiny_job:make", "--recipe", "quantize/weights", *more)
    assert done.exit_code == 1 and "are for the planner, but a recipe is given" in done.output


def test_what_the_system_refuses_is_a_sentence(here, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cortado.commands.compressing.reach_within", full)
    done = cortado("compress", "tiny_job:make", "--limit", "score >= -1 %", "--time-limit", "1 s")
    assert done.exit_code == 1 and "No space left on device" in done.output and "--resume" in done.output
