"""The command line's runtimes: export, bench, split, profile --time, compress --time; what fails leaves nothing."""

import io
import json
import zipfile
from collections import Counter

import onnx
import pytest
from click.testing import CliRunner

from cortado.cli import main
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.torch_eager import TorchSession
from tests.test_cli import cortado, here  # noqa: F401 - a fixture

EMPTY_ARCHIVE = io.BytesIO()
with zipfile.ZipFile(EMPTY_ARCHIVE, "w") as archive:
    archive.writestr("letter.txt", "dear")
RARE = """
import torch
from torch import nn
from tests.laws.tiny_nets import BY_NAME
class Rare(nn.Module):
    def forward(self, activation):
        return torch.special.bessel_y1(activation.abs() + 1)
def make():
    return nn.Sequential(nn.Linear(12, 4), Rare()), BY_NAME["mlp"].task()
"""

SPARSE = """
import torch
from torch import nn
from tests.laws.tiny_nets import BY_NAME
class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.left, self.right = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 4, 1), nn.Conv2d(32, 4, 1)
        self.enter.weight.data *= torch.arange(9).view(3, 3) == 4
    def forward(self, images):
        activation = torch.relu(self.enter(images))
        return (self.left(activation) * self.right(activation)).mean((2, 3))
def make():
    torch.manual_seed(0)
    return Sparse(), BY_NAME["residual"].task()
"""


def test_export_of_a_job_and_of_its_bundle_can_be_timed(here):  # noqa: F811
    assert cortado("compress", "job.yaml", "--out", "out").exit_code == 0
    for source, folder in (("tiny_job:make", "original"), ("out", "small")):
        done = cortado("export", source, "--runtime", "onnxruntime", "--out", folder)
        assert done.exit_code == 0, done.output
        assert "same top-1 100.00 %" in done.output
        assert json.loads((here / folder / "export.json").read_text())["file"] == "net.onnx"
    timed = cortado("bench", "small/net.onnx", "--batch", 2, "--seconds", 0.1)
    assert timed.exit_code == 0 and "A/A" in timed.output and "(2, 12)" in timed.output


def test_export_merges_and_gathers_when_asked(here):  # noqa: F811
    (here / "sparse_job.py").write_text(SPARSE)
    operators = {}
    for words in ((), ("--merge",), ("--gather",), ("--merge", "--gather")):
        done = cortado("export", "sparse_job:make", "--out", "x", "--standard", *words)
        assert done.exit_code == 0, done.output
        graph = onnx.load(here / "x/net.onnx").graph
        operators[words] = Counter(node.op_type for node in graph.node)
    assert operators[()]["Conv"] == 3 and not {"Gather", "Split"} & set(operators[()])
    # Two convolutions that read one input are merged; the first kept one column in nine, and its 32 filters gather it.
    assert operators["--merge",]["Conv"] == 2 and operators["--merge",]["Split"] == 1
    assert operators["--gather",]["Conv"] == 2 and operators["--gather",]["Gather"] == 1
    assert operators["--merge", "--gather"]["Conv"] == 1 and set(operators["--merge", "--gather"]) >= {
        "Gather",
        "Split",
    }


def test_compress_times_and_limits_latency(here):  # noqa: F811
    words = ("compress", "job.yaml", "--limit", "latency <= 1 s", "--measure-in", "onnxruntime", "--out", "out")
    done = cortado(*words)
    assert done.exit_code == 0, done.output
    assert "latency in onnxruntime, batch 1, threads 1" in done.output and "over the same runtime" in done.output
    report = json.loads((here / "out/report.json").read_text())
    assert report["exports"][0]["same_top"] == 1 and len(report["clocks"]) == 1
    assert {"onnxruntime", "instruction sets"} <= set(report["environment"])
    assert "over torch eager" in (here / "out/report.html").read_text()


def test_missed_latency_is_exit_status_three(here):  # noqa: F811
    done = cortado("compress", "job.yaml", "--limit", "latency <= 1 ns in onnxruntime", "--out", "out")
    assert done.exit_code == 3, done.output
    assert (here / "out/net.cortado").exists()


def test_profile_times_layers_and_split_lists_cuts(here):  # noqa: F811
    profiled = cortado("profile", "tiny_job:make", "--time", "--batch", 3)
    assert profiled.exit_code == 0, profiled.output
    assert "batch 3" in profiled.output and "roofline" in profiled.output and "GFLOP/s" in profiled.output
    cuts = cortado("split", "tiny_job:make")
    assert cuts.exit_code == 0 and "to send" in cuts.output and "(input)" in cuts.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["export", "tiny_job:make", "--runtime", "onnxruntim", "--out", "x"], "Did you mean onnxruntime"),
        (["export", "tiny_job:make", "--out", "no/such/x"], "does not exist"),
        (["export", "tiny_job:make", "--out", "x", "--tolerance", "nan"], "tolerance must be at least 0"),
        (["export", "tiny_job:make", "--out", "x", "--tolerance", "-1"], "tolerance must be at least 0"),
        (["export", "rare_job:make", "--out", "x"], "bessel_y1"),
        (["export", ".", "--out", "x"], "no checksums.txt"),
        (["bench", "nowhere.onnx"], "cannot be read"),
        (["bench", "tiny_job.py"], "no runtime has files like"),
        (["compress", "job.yaml", "--limit", "latency <= 3 ms", "--out", "x"], "names no runtime"),
        (["compress", "job.yaml", "--measure-in", "onnxruntime", "--threads", "0", "--out", "x"], "at least 1"),
    ],
)
def test_errors_are_a_sentence_exit_status_one_and_no_file(here, words, says):  # noqa: F811
    (here / "rare_job.py").write_text(RARE)
    before = sorted(path for path in here.rglob("*") if "__pycache__" not in str(path))
    done = cortado(*words)
    assert done.exit_code == 1, done.output
    assert says in done.output and "Traceback" not in done.output
    assert sorted(path for path in here.rglob("*") if "__pycache__" not in str(path)) == before


@pytest.mark.parametrize("name", ["net.pt2", "net.onnx", "net.xml"])
@pytest.mark.parametrize(
    "body", [b"not a network", EMPTY_ARCHIVE.getvalue(), b'<?xml version="1.0"?><net name="x"><layers></layers']
)
def test_bench_of_a_broken_file_says_one_sentence_and_nothing_else(tmp_path, capfd, name, body):
    (tmp_path / name).write_bytes(body)
    done = CliRunner().invoke(main, ["bench", str(tmp_path / name)])
    # What libraries write by themselves goes past the runner, or to its standard error as lines of their own.
    assert done.exit_code == 1 and "".join(capfd.readouterr()) == ""
    assert done.output.count("\n") == 1 and f"{name} " in done.output and "warnings above" not in done.output


def test_runtime_that_is_not_installed_names_its_extra(here, monkeypatch):  # noqa: F811
    monkeypatch.setattr(Onnxruntime, "available", lambda self: False)
    done = cortado("export", "tiny_job:make", "--out", "x")
    assert done.exit_code == 1 and "pip install -e '.[onnx]'" in done.output
    assert not (here / "x").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["profile", "tiny_job:make", "--time", "--threads", 0],
        ["profile", "tiny_job:make", "--time", "--batch", -3],
        ["profile", "tiny_job:make", "--time", "--batch", 0],
        ["split", "tiny_job:make", "--threads", 0],
        ["bench", "tiny_job.py", "--batch", 0],
        ["compress", "job.yaml", "--measure-in", "onnxruntime", "--batch", 0, "--out", "x"],
    ],
)
def test_zero_batches_and_zero_threads_are_refused(here, words):  # noqa: F811
    done = cortado(*words)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
    assert "batch and threads must be at least 1" in done.output and done.output.count("\n") == 1


def test_outputs_that_differ_are_exit_status_one_and_no_file(here, monkeypatch):  # noqa: F811
    class Off(TorchSession):
        def __call__(self, *activations):
            return tuple(value + 1 for value in super().__call__(*activations))

    loaded = Onnxruntime.load
    monkeypatch.setattr(Onnxruntime, "load", lambda self, file, threads: Off(loaded(self, file, threads), (), threads))
    done = cortado("export", "tiny_job:make", "--out", "x")
    assert (
        done.exit_code == 1
        and "outputs differ from PyTorch's" in done.output
        and "It begins at 0 (Linear)" in done.output
    )
    assert not (here / "x").exists() and not list(here.glob(".x*"))
