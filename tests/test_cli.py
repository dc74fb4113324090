"""The command line: every command by its exit status, its words and its files."""

import json
import logging
import re
import sys
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from cortado.cli import main
from cortado.commands.given import in_words, old_option
from cortado.engine.job import Job, read_job
from cortado.file.artifact import load
from cortado.methods.finetune import Finetune
from cortado.network.compare.explain import explain
from cortado.quantities import size_text
from tests.laws.tiny_nets import BY_NAME

RECIPE = ("--recipe", "quantize/weights bits=3", "--limit", "size <= 1 MB")
NOWHERE = "/proc/nothing"
"""The system lets nobody write there, not even root."""
JOB = """
import torch
from tests.laws.tiny_nets import BY_NAME
def make():
    return BY_NAME["mlp"].make(), BY_NAME["mlp"].task()
def network():
    return BY_NAME["mlp"].make()
def task(seed=0):
    return BY_NAME["mlp"].task()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a job in Python and one in YAML, entered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "tiny_job.py").write_text(JOB)
    (tmp_path / "job.yaml").write_text(
        "network: tiny_job:network\ntask: tiny_job:task\nrecipe: quantize/weights bits=4\nlimits: [size <= 1 KB]\n"
    )
    sys.modules.pop("tiny_job", None)
    yield tmp_path
    sys.modules.pop("tiny_job", None)


def cortado(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_compress_writes_a_bundle_and_ends_with_zero(here):
    done = cortado(
        "compress", "tiny_job:make", "--recipe", "prune/weights keep=0.5 | quantize/weights bits=4", "--out", "out"
    )
    assert done.exit_code == 0, done.output
    names = {path.name for path in (here / "out").iterdir()}
    assert {"net.cortado", "report.json", "report.html", "recipe.yaml", "job.yaml", "checksums.txt"} <= names
    report = json.loads((here / "out/report.json").read_text())
    assert report["stages"][-1]["size_bytes"] == (here / "out/net.cortado").stat().st_size
    assert "accuracy" in done.output


def test_job_file_brings_its_recipe_and_limits(here):
    done = cortado("compress", "job.yaml", "--out", "out")
    assert done.exit_code == 0, done.output
    assert load(here / "out/net.cortado", BY_NAME["mlp"].maker)(torch.zeros(2, 12)).shape == (2, 4)


@pytest.mark.parametrize("command", [["compress", "--out", "out"], ["plan"]])
def test_network_below_its_stated_score_is_refused(here, command):
    text = (here / "job.yaml").read_text()
    (here / "stated.yaml").write_text(text + "score: 4000\n")
    done = cortado(command[0], "stated.yaml", *command[1:])
    assert (
        done.exit_code == 1 and "the stated accuracy of the original network is 4000 %, but it reaches" in done.output
    ), done.output
    assert not (here / "out").exists()


def test_missed_limit_is_exit_status_three_and_the_bundle_is_there(here):
    done = cortado("compress", "job.yaml", "--limit", "size <= 10 B", "--out", "out")
    assert done.exit_code == 3, done.output
    assert (here / "out/net.cortado").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compress", "nowhere:make"], "cannot be loaded"),
        (["compress", "tiny_job:make"], "neither a recipe nor a limit is given"),
        (["compress", "job.yaml", "--recipe", ""], "it is empty"),
        (["compress", "tiny_job:make", "--recipe", "prune/wights"], "Did you mean: prune/weights"),
        (["compress", "tiny_job:make", "--recipe", "finetune", "--limit", "small"], "is not a limit"),
        (
            ["compress", "tiny_job:make", "--recipe", "finetune", "--device", "cuda:9"],
            "device 'cuda:9' is not available",
        ),
        (["inspect", "nowhere.cortado"], "cannot be read"),
        (["report", "nowhere"], "nowhere"),
        (["profile", "missing.yaml"], "missing.yaml"),
        (["unpack", "nowhere.cortado", "tiny_job:make", "x.safetensors"], "cannot be read"),
    ],
)
def test_errors_are_a_sentence_and_exit_status_one(here, words, says):
    done = cortado(*words)
    assert done.exit_code == 1, done.output
    assert says in done.output and "Traceback" not in done.output


def test_inspect_unpack_report_and_profile_read_what_compress_wrote(here):
    assert cortado("compress", "job.yaml", "--out", "out").exit_code == 0
    shown = cortado("inspect", "out", "--job", "job.yaml")
    assert shown.exit_code == 0 and "0.weight" in shown.output and "quantized" in shown.output
    assert "#0" in cortado("inspect", "out/net.cortado").output
    assert cortado("unpack", "out", "job.yaml", "dense.safetensors").exit_code == 0
    dense, network = load_file(here / "dense.safetensors"), load(here / "out/net.cortado", BY_NAME["mlp"].maker)
    assert set(dense) == set(BY_NAME["mlp"].make().state_dict())
    assert torch.equal(dense["0.weight"], network[0].weight.detach())
    assert cortado("report", "out", "--html", "page.html").exit_code == 0
    assert (here / "page.html").read_text().lstrip().lower().startswith("<!doctype html")
    assert cortado("profile", "job.yaml").exit_code == 0
    (here / "out/report.json").write_text("{}")
    assert cortado("report", "out").exit_code == 1


def test_profile_and_split_of_a_bundle_show_what_is_left(here):
    assert cortado("compress", "tiny_job:make", "--recipe", "prune/channels keep=0.5", "--out", "out").exit_code == 0
    for command, original, small in (("profile", "208", "104"), ("split", "64 B", "32 B")):
        # The hidden layer, 12 to 16: (12 + 1) x 16 parameters, 16 floats to send; half of each is left.
        for source, there, gone in (("tiny_job:make", original, small), ("out", small, original)):
            done = cortado(command, source)
            assert done.exit_code == 0, done.output
            assert f"  {there}  " in done.output and f"  {gone}  " not in done.output
    (here / "out/net.cortado").write_bytes(b"altered")
    assert "was altered" in cortado("profile", "out").output


def test_profile_counts_the_weights_that_a_job_brings_and_never_trains(here, monkeypatch):
    state = BY_NAME["mlp"].make().state_dict()
    state["0.weight"] = state["0.weight"] * (
        torch.arange(12) < 3
    )  # three of twelve inputs; the other layer has 64 weights
    save_file(state, here / "sparse.safetensors")
    text = (here / "job.yaml").read_text()
    (here / "job.yaml").write_text(text + "weights: sparse.safetensors\n")
    assert f"  {16 * 3 + 64}  " in cortado("profile", "job.yaml").output
    monkeypatch.setattr(Finetune, "apply", lambda self, view, task: pytest.fail("trained"))
    (here / "job.yaml").write_text(text + "train: {epochs: 1}\n")
    for command in ("profile", "split"):
        done = cortado(command, "job.yaml")
        assert done.exit_code == 0 and done.exception is None, done.output


def trained_elsewhere(self, view, task):
    pytest.fail("trained")


@pytest.fixture
def compressed(here):
    """A folder with the bundle `out` of a job that trains its network first."""
    (here / "job.yaml").write_text((here / "job.yaml").read_text() + "train: {epochs: 1, lr: 0.01}\n")
    done = cortado("compress", "job.yaml", *RECIPE, "--out", "out", "--seed", "4")
    assert done.exit_code == 0, done.output
    return here


def test_explain_shows_what_the_networks_of_the_bundle_differ_by(here):
    assert cortado("compress", "tiny_job:make", *RECIPE, "--out", "out").exit_code == 0
    done = cortado("explain", "out", "--images", 8)
    assert done.exit_code == 0, done.output
    original, task = BY_NAME["mlp"].make(), BY_NAME["mlp"].task()
    found = explain(original, load(here / "out/net.cortado", BY_NAME["mlp"].maker), task.calibration, 8)
    assert done.output == found.text() + "\n" and found.output > 0.01
    assert "quantized" in done.output and "Most of the error enters at " in done.output


def test_explain_uses_the_trained_network_of_compress(compressed, monkeypatch):
    monkeypatch.setattr(Finetune, "apply", trained_elsewhere)
    shown = cortado("explain", "out")
    assert shown.exit_code == 0, shown.output
    (kept,) = (compressed / "out").glob("original_*.safetensors")
    away = kept.rename(compressed / "away.safetensors")
    lost = cortado("explain", "out")
    assert lost.exit_code == 1 and isinstance(lost.exception, SystemExit), lost.output
    assert f"there is no out/{kept.name}" in lost.output and "compress again into that folder" in lost.output
    assert lost.output.count("\n") == 1
    away.rename(kept)
    assert cortado("explain", "out", "--job", "job.yaml").output == shown.output


def test_plain_again_is_the_network_that_was_compressed(compressed):
    (kept,) = (compressed / "out").glob("original_*.safetensors")
    job = read_job(str(compressed / "out"), 4)
    first, again = (
        job.original(job.make_task(), compressed / "out"),
        job.original_again(job.make_task(), compressed / "out"),
    )
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())
    assert not torch.equal(job.begun(job.make_task())[0].weight, again[0].weight)


def test_explain_of_a_job_that_brings_weights_has_them_in_the_bundle(here):
    state = {key: value * 2 for key, value in BY_NAME["mlp"].make().state_dict().items()}
    save_file(state, here / "net.safetensors")
    (here / "job.yaml").write_text((here / "job.yaml").read_text() + "weights: net.safetensors\n")
    assert cortado("compress", "job.yaml", *RECIPE, "--out", "out").exit_code == 0
    done = cortado("explain", "out", "--job", "job.yaml")
    assert done.exit_code == 0 and "The outputs differ by " in done.output, done.output
    (here / "net.safetensors").unlink()
    assert cortado("explain", "out").output == done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["explain", "nowhere"], "needs a bundle's folder"),
        (["explain", "job.yaml"], "needs a bundle's folder"),
        (["explain", "."], "no checksums.txt"),
        (["explain", "out", "--images", "0"], "at least 1 image"),
        (["explain", "out", "--job", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_explain_errors_are_a_sentence_and_exit_status_one(here, words, says):
    if words[1] == "out":
        assert cortado("compress", "job.yaml", *RECIPE, "--out", "out").exit_code == 0
    done = cortado(*words)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
    assert says in done.output and done.output.count("\n") == 1


def test_explain_of_a_bundle_that_was_altered_is_refused(compressed):
    (compressed / "out/net.cortado").write_bytes(b"altered")
    done = cortado("explain", "out")
    assert done.exit_code == 1 and "was altered" in done.output


def test_bundle_of_a_maker_of_a_job_leads_back_to_it(here):
    (here / "tiny_job.py").write_text(
        (here / "tiny_job.py").read_text()
        + "from cortado.engine.job import Job\ndef job():\n    return Job(network, task, training={'epochs': 1})\n"
    )
    assert cortado("compress", "tiny_job:job", *RECIPE, "--out", "out").exit_code == 0
    done = cortado("explain", "out")
    assert done.exit_code == 0, done.output


def test_resume_continues_and_ends_alike(here):
    first = cortado("compress", "job.yaml", "--out", "out")
    body = (here / "out/net.cortado").read_bytes()
    again = cortado("compress", "job.yaml", "--out", "out", "--resume")
    assert first.exit_code == again.exit_code == 0
    assert (here / "out/net.cortado").read_bytes() == body


@pytest.mark.parametrize("out", ["job.yaml", "job.yaml/inside", NOWHERE])
def test_folder_that_cannot_be_written_is_refused_before_anything_runs(here, monkeypatch, out):
    monkeypatch.setattr(Job, "original", lambda *given: pytest.fail("the network was made"))
    before = (here / "job.yaml").read_bytes()
    for command in ("compress", "export"):
        done = cortado(command, "job.yaml", "--out", out)
        assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
        assert done.output.startswith(command) and out.rpartition("/")[0] in done.output
        assert done.output.count("\n") == 1
    assert (here / "job.yaml").read_bytes() == before and [path.name for path in here.glob(".cortado*")] == []


def test_file_that_cannot_be_written_is_one_sentence(here):
    assert cortado("compress", "job.yaml", "--out", "out").exit_code == 0
    for file in ("out", f"{NOWHERE}"):
        for words in (("report", "out", "--html", file), ("unpack", "out", "job.yaml", file)):
            done = cortado(*words)
            assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
            assert f"{file} cannot be written" in done.output and done.output.count("\n") == 1


def test_unpack_leaves_no_half_file(here):
    assert cortado("compress", "job.yaml", "--out", "out").exit_code == 0
    assert cortado("unpack", "out", "job.yaml", Path("no/such/folder/x.safetensors")).exit_code != 0
    assert not list(here.rglob("*.part"))


def test_help_names_every_command():
    shown = cortado("--help").output
    assert all(
        word in shown
        for word in ("compress", "export", "bench", "profile", "explain", "split", "inspect", "unpack", "report")
    )


RUN = ("compress", "tiny_job:make", "--recipe", "prune/weights keep=0.5 | quantize/weights bits=4", "--out", "out")


def test_without_a_terminal_each_stage_is_a_line_on_standard_error(here):
    done = cortado(*RUN)
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and done.exit_code == 0, done.stderr
    sizes = [stage["size_bytes"] for stage in json.loads((here / "out/report.json").read_text())["stages"]]
    for number, (line, name) in enumerate(zip(lines, ("prune/weights", "quantize/weights"), strict=True), 1):
        size = size_text(sizes[number - 1])
        assert re.fullmatch(rf"stage {number} of 2 {name}: {size}, accuracy [\d.]+ %, [\d.]+ (us|ms|s)", line), line


def test_quiet_shows_the_result_alone_and_verbose_more(here):
    loud, quiet = cortado(*RUN), cortado(*RUN, "--quiet")
    assert (
        quiet.stderr == ""
        and [line.split(",")[0] for line in quiet.stdout.splitlines()][:1]
        == [line.split(",")[0] for line in loud.stdout.splitlines()][:1]
    )
    tuned = ("compress", "tiny_job:make", "--recipe", "finetune epochs=2", "--out", "tuned")
    assert "tune: epoch 2" in cortado(*tuned, "--verbose").stderr
    assert "epoch" not in cortado(*tuned).stderr


def test_quiet_still_shows_errors(here):
    done = cortado("compress", "tiny_job:make", "--recipe", "no/such", "--out", "out", "--quiet")
    assert done.exit_code == 1 and "no method is called 'no/such'" in done.stderr


def test_log_of_the_package_is_left_as_it_was(here):
    log = logging.getLogger("cortado")
    before = (log.level, list(log.handlers))
    cortado("profile", "tiny_job:make", "--verbose")
    assert (log.level, log.handlers) == before


def test_every_command_takes_quiet_and_verbose():
    for name, command in main.commands.items():
        assert {"--quiet", "--verbose"} <= {word for one in command.params for word in one.opts}, name


@pytest.mark.parametrize(
    ("words", "runtimes"), [(("--old", "a", "--old", "b"), ("a", "b")), (("--old", "a", "--new", "b"), ("b",))]
)
def test_old_option_warns_and_yields_to_the_new_one(words, runtimes):
    seen = []

    @click.command()
    @old_option("--old", "--new")
    @click.option("--new", "runtimes", multiple=True)
    @in_words
    def command(runtimes):
        seen.append(runtimes)

    done = CliRunner().invoke(command, words)
    assert (done.exit_code, seen) == (0, [runtimes]), done.output
    assert done.stderr == "--old is now called --new. The next version drops the old name.\n"
    assert "--old" not in CliRunner().invoke(command, ["--help"]).output


def test_old_options_that_are_not_given_change_nothing():
    seen = []

    @click.command()
    @old_option("--budget", "--time-limit")
    @click.option("--time-limit", "budget", type=float, default=2.5)
    @in_words
    def command(budget):
        seen.append(budget)

    for words in ((), ("--budget", "3"), ("--time-limit", "4")):
        assert CliRunner().invoke(command, words).exit_code == 0
    assert seen == [2.5, 3.0, 4.0]


def test_deep_compression_s_columns_are_shown_when_asked_for(here):
    assert "P+Q" not in cortado(*RUN).output
    assert "P+Q" in cortado(*RUN, "--deep-compression", "--resume").output
    assert "P+Q" not in cortado("report", "out").output
    assert "P+Q" in cortado("report", "out", "--deep-compression", "--html", "page.html").output
    assert "P+Q" in (here / "page.html").read_text(encoding="utf8")
