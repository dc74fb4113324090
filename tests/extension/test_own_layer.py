"""A user's layer class in one file: its weights hold forms, it is cut, quantized, stored, exported and reported."""

from pathlib import Path

import pytest
import torch

import cortado
from cortado.engine.compress import compress
from cortado.file.artifact import save
from cortado.network.profile.profile import profile
from cortado.network.weight import parameter_places
from cortado.task.task import Task
from tests.extension.gated_linear import GatedLinear, GatedNet
from tests.fresh import fresh

RECIPE = "prune/channels keep=0.5 multiple=1 | share/kmeans bits=4 where=two* | quantize/weights bits=8 where=one*, head* | finetune epochs=1"
LOADS = """
import sys
import torch
torch.set_num_threads(1)
from cortado.file.artifact import load
from tests.extension.gated_linear import GatedNet
torch.save(load(sys.argv[1], GatedNet)(torch.ones(3, 6)), sys.argv[2])
"""


def samples(seed):
    values = torch.randn(64, 6, generator=torch.Generator().manual_seed(seed))
    return values, values[:, :4].argmax(1)


@pytest.fixture(scope="module")
def task():
    return Task(samples(1), samples(2), samples(3), batch=16, device="cpu")


@pytest.fixture(scope="module")
def made(task):
    return compress(GatedNet(), task, RECIPE)


def test_one_short_file_is_enough():
    assert len(Path(__file__).with_name("gated_linear.py").read_text(encoding="utf8").splitlines()) <= 60


def test_all_its_parameters_are_cut_together(made):
    network, _ = made
    assert isinstance(network.one, GatedLinear)
    shapes = {weight.path: tuple(weight.shape) for weight in parameter_places(network)}
    assert shapes["one.value"] == shapes["one.gate"] == (6, 16) and shapes["one.bias"] == (16,)
    assert shapes["two.value"] == (16, 16) and shapes["head.weight"] == (4, 16)


def test_its_weights_hold_forms(made):
    forms = {weight.path: weight.form for weight in parameter_places(made[0])}
    assert all(forms[path].code_bits() <= 4 for path in ("two.value", "two.gate"))
    assert forms["one.value"].lattice() is not None and forms["one.gate"].lattice() is not None


def test_it_is_reported_and_profiled(made, task):
    network, report = made
    rows = {row.path: row for row in report.layers}
    assert rows["two.gate"].form == "codebook" and rows["one.value"].form == "quantized"
    assert report.size_bytes < report.original_bytes / 4
    assert profile(network, task.example).row("two").multiply_adds == 2 * 16 * 16


def test_its_file_gives_it_back(made, tmp_path):
    save(made[0], tmp_path / "net.cortado", GatedNet())
    child = fresh(LOADS, str(tmp_path / "net.cortado"), str(tmp_path / "outputs.pt"))
    assert child.returncode == 0, child.stderr
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), made[0](torch.ones(3, 6)))


@pytest.mark.parametrize("runtime", ["torch_eager", "onnxruntime"])
def test_it_exports(made, task, runtime, tmp_path):
    assert cortado.export(made[0], task, runtime, tmp_path).difference < 1e-5
