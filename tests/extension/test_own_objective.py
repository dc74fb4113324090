"""An objective written by a user in one file, with a critic: from a recipe to a file, an export and a page."""

from pathlib import Path

import pytest
import torch

from cortado.engine.compress import compress
from cortado.errors import BadRecipe, BadValue
from cortado.file.artifact import save
from cortado.report.pages.html import report_html
from cortado.report.report import read_report
from cortado.runtimes.export import export
from tests.fresh import fresh
from tests.laws.tiny_nets import BY_NAME

TINY = BY_NAME["mlp"]
OWN = "tests.extension.critic_on_features:Critic"
RECIPE = [
    {"prune/channels": {"keep": 0.5}},
    {"finetune": {"epochs": 3, "lr": 0.01, "objectives": ["task", {OWN: {"at": "1", "weight": 0.1, "every": 2}}]}},
    {"quantize/weights": {"bits": 8}},
]
LOADS = f"""
import sys
import torch
torch.set_num_threads(1)
from cortado.file.artifact import load
from tests.laws.tiny_nets import BY_NAME
net = BY_NAME["mlp"]
torch.save(load(sys.argv[1], net.maker)(net.example), sys.argv[2])
assert "{OWN.partition(":")[0]}" not in sys.modules
"""


@pytest.fixture(scope="module")
def made():
    return compress(TINY.make(), TINY.task(), RECIPE)


def test_one_short_file_is_enough():
    lines = (Path(__file__).with_name("critic_on_features.py")).read_text(encoding="utf8").splitlines()
    assert len(lines) <= 60


def test_it_trains_in_a_recipe_beside_the_task_with_a_curve_for_every_term(made, tmp_path):
    _, report = made
    curves = report.stages[1].curves
    assert set(curves) == {"task", "critic", "deceive", "near"} and all(len(one) == 3 for one in curves.values())
    assert curves["task"][-1] < curves["task"][0] and curves["near"][-1] < curves["near"][0]
    (tmp_path / "report.json").write_text(report.as_json())
    assert read_report(tmp_path / "report.json") == report
    assert all(name in report_html(report) for name in ("deceive", "near"))
    assert OWN in str(report.recipe)


def test_its_file_loads_where_the_objective_is_not_installed(made, tmp_path):
    network, _ = made
    save(network, tmp_path / "net.cortado", TINY.make())
    child = fresh(LOADS, str(tmp_path / "net.cortado"), str(tmp_path / "outputs.pt"))
    assert child.returncode == 0, child.stderr
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), network(TINY.example))


@pytest.mark.parametrize("runtime", ["torch_eager", "onnxruntime"])
def test_it_leaves_a_network_that_exports(made, runtime, tmp_path):
    network, _ = made
    exported = export(network, TINY.task(), runtime, tmp_path)
    assert exported.difference < 1e-4


def test_its_mistakes_are_told_in_words():
    for objective, wrong, message in (
        (f"{OWN}s", BadRecipe, "Critics"),
        ({OWN: {"att": "1"}}, BadRecipe, "no knob 'att'; did you mean 'at'"),
        ({OWN: {"at": "1", "every": 0}}, BadValue, "every must lie in 1"),
        ({OWN: {"at": "9"}}, BadValue, "the network has no module '9' to tap"),
    ):
        with pytest.raises(wrong, match=message):
            compress(TINY.make(), TINY.task(), [{"finetune": {"objectives": [objective]}}])
