"""A user's form in one file: made, tuned around, pruned, cut, stored, loaded without its method, exported and reported."""

from pathlib import Path

import pytest
import torch

import cortado
from cortado.engine.compress import compress
from cortado.errors import BadFile
from cortado.file.artifact import decode, encode, save
from cortado.network.weight import parameter_places
from tests.extension.powers_of_two import Powers, RoundToPowers
from tests.extension.residual_net import ResidualNet, task
from tests.fresh import fresh

RECIPE = [
    RoundToPowers(levels=5),
    "finetune epochs=1",
    "prune/channels keep=0.5 multiple=1",
    "prune/weights keep=0.5 where=head*",
]
LOADS = """
import sys
import torch
torch.set_num_threads(1)
from cortado.file.artifact import load
from tests.extension.powers_of_two import Powers
from tests.extension.residual_net import ResidualNet, task
torch.save(load(sys.argv[1], ResidualNet, [Powers])(task().test.inputs), sys.argv[2])
"""


@pytest.fixture(scope="module")
def made():
    return compress(ResidualNet(), task(), RECIPE)


def test_one_short_file_is_enough():
    assert len(Path(__file__).with_name("powers_of_two.py").read_text(encoding="utf8").splitlines()) <= 60


def test_values_are_the_nearest_powers_of_two():
    values = torch.tensor([[1.0, -0.7, 0.3], [0.02, 0.0, -2.0]])
    form = RoundToPowers(levels=4).rounded(values)
    assert form.dense().tolist() == [[1.0, -0.5, 0.25], [0.0, 0.0, -2.0]]


def test_the_form_survives_a_cut_and_pruning_without_a_note(made):
    network, report = made
    forms = {weight.path: weight.form for weight in parameter_places(network)}
    assert all(isinstance(forms[path], Powers) for path in ("stem.weight", "head.weight", "blocks.1.conv.weight"))
    assert forms["stem.weight"].shape[0] < 8 and not any(
        "give" in note for stage in report.stages for note in stage.notes
    )
    assert forms["head.weight"].nonzeros() <= forms["head.weight"].shape.numel() / 2
    rows = {row.path: row for row in report.layers}
    assert rows["head.weight"].form == "powers" and report.size_bytes < report.original_bytes / 5


def test_its_file_gives_it_back(made, tmp_path):
    network, _ = made
    save(network, tmp_path / "net.cortado", ResidualNet())
    child = fresh(LOADS, str(tmp_path / "net.cortado"), str(tmp_path / "outputs.pt"))
    assert child.returncode == 0, child.stderr
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), network(task().test.inputs))
    with pytest.raises(BadFile, match="uses a form that is not known here .* forms=.MyForm"):
        decode(encode(network, ResidualNet()), ResidualNet)


@pytest.mark.parametrize("runtime", ["torch_eager", "onnxruntime"])
def test_it_exports(made, runtime, tmp_path):
    assert cortado.export(made[0], task(), runtime, tmp_path).difference < 1e-5
