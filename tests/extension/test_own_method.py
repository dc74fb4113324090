"""A user's 4-bit method in one file: nearer than plain rounding, tuned, stored, loaded without it, packed in a runtime."""

from pathlib import Path

import pytest
import torch
from torch import nn

import cortado
from cortado.engine.compress import compress
from cortado.file.artifact import save
from cortado.network.weight import parameter_places
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Task
from tests.extension.fitted_groups import FittedGroups
from tests.fresh import fresh

OWN = "tests.extension.fitted_groups:FittedGroups"
LOADS = """
import sys
import torch
torch.set_num_threads(1)
from torch import nn
from cortado.file.artifact import load
net = lambda: nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 4))
torch.save(load(sys.argv[1], net)(torch.ones(3, 64)), sys.argv[2])
assert "tests.extension.fitted_groups" not in sys.modules
"""


def maker():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 4)).eval()


def samples(seed):
    values = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))
    return values, values[:, :4].argmax(1)


@pytest.fixture(scope="module")
def task():
    return Task(samples(1), samples(2), samples(3), batch=16, device="cpu")


@pytest.fixture(scope="module")
def made(task):
    return compress(maker(), task, [{OWN: {"group": 32}}, "finetune epochs=1"])


def test_one_short_file_is_enough():
    assert len(Path(__file__).with_name("fitted_groups.py").read_text(encoding="utf8").splitlines()) <= 60


def test_fitted_scales_are_nearer_than_those_of_the_range():
    values = torch.randn(48, 70, generator=torch.Generator().manual_seed(5))
    fitted, plain = FittedGroups(group=16).rounded(values), Quantized.of(values, 4, "group", 16)
    assert (values - fitted.dense()).square().mean() < 0.9 * (values - plain.dense()).square().mean()
    assert FittedGroups(group=16).rounded(torch.zeros(2, 20)).nonzeros() == 0


def test_its_weights_have_four_bits_in_groups_and_are_reported(made):
    network, report = made
    forms = [weight.form.lattice() for weight in parameter_places(network) if len(weight.shape) > 1]
    assert all((form.layout, form.group) == ("group", 32) and int(form.codes.abs().max()) <= 7 for form in forms)
    assert OWN in str(report.recipe) and report.size_bytes < report.original_bytes / 4


def test_its_file_loads_where_the_method_is_not_installed(made, tmp_path):
    save(made[0], tmp_path / "net.cortado", maker())
    child = fresh(LOADS, str(tmp_path / "net.cortado"), str(tmp_path / "outputs.pt"))
    assert child.returncode == 0, child.stderr
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), made[0](torch.ones(3, 64)))


def test_a_runtime_keeps_its_codes_packed(made, task, tmp_path):
    row = cortado.export(made[0], task, "onnxruntime", tmp_path)
    assert row.difference < 1e-3 and {(one.kernel, one.bits) for one in row.placements} == {("packed", 4)}
