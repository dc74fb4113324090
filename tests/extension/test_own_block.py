"""A user's gate in one file: trained, compressed further, stored, loaded without its method, profiled and reported."""

from pathlib import Path

import pytest
import torch

import cortado
from cortado.engine.compress import compress
from cortado.errors import BadFile, BadNetwork
from cortado.file.artifact import decode, encode, save
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.network.weight import parameter_places
from cortado.parts.blocks.block import blocks_in
from cortado.report.pages.html import report_html
from cortado.report.report import read_report
from tests.extension.residual_net import ResidualNet, task
from tests.extension.skip_gate import Gate
from tests.fresh import fresh

AT = "blocks.1"
OWN = "tests.extension.skip_gate:SkipBlock"
RECIPE = [{OWN: {"at": AT, "epochs": 2}}, {"prune/weights": {"keep": 0.6}}, {"quantize/weights": {"bits": 8}}]
LOADS = """
import sys
import torch
torch.set_num_threads(1)
from cortado.file.artifact import load
from cortado.parts.blocks.block import ORIGINAL, Block
from tests.extension.residual_net import ResidualNet, task
from tests.extension.skip_gate import Gate
torch.save(load(sys.argv[1], ResidualNet, [Gate])(task().test.inputs), sys.argv[2])
"""


@pytest.fixture(scope="module")
def made():
    return compress(ResidualNet(), task(), RECIPE)


def test_one_short_file_is_enough():
    assert len(Path(__file__).with_name("skip_gate.py").read_text(encoding="utf8").splitlines()) <= 60


def test_a_gate_skips_a_block_per_sample(made):
    network, _ = made
    inputs = task().test.inputs
    gate = dict(blocks_in(network))[AT]
    with torch.no_grad():
        network(inputs)
    assert gate.choose.ran.rows.shape == (len(inputs),)
    open_gate = {"decision.weight": torch.zeros(1, gate.channels), "decision.bias": torch.ones(1)}
    values = torch.randn(3, gate.channels, 4, 4)
    for sign, wanted in ((1.0, gate.inner(values)), (-1.0, values)):
        state = {name: sign * value for name, value in open_gate.items()}
        found = torch.func.functional_call(Gate(gate.inner, gate.channels).eval(), state, (values,))
        assert torch.allclose(found, wanted)


def test_weights_keep_their_names_and_the_gates_own_are_compressed_too(made):
    network, report = made
    before = [weight.path for weight in parameter_places(ResidualNet())]
    names = [weight.path for weight in parameter_places(network)]
    own = [f"{AT}.decision.weight", f"{AT}.decision.bias"]
    assert sorted(names) == sorted([*before, *own])
    forms = {weight.path: weight.form for weight in parameter_places(network)}
    assert forms[own[0]].code_bits() is not None and forms[f"{AT}.conv.weight"].support() is not None
    assert report.size_bytes < report.original_bytes


def test_its_file_gives_it_back(made, tmp_path):
    network, _ = made
    save(network, tmp_path / "net.cortado", ResidualNet())
    child = fresh(LOADS, str(tmp_path / "net.cortado"), str(tmp_path / "outputs.pt"))
    assert child.returncode == 0, child.stderr
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), network(task().test.inputs))
    body = encode(network, ResidualNet())
    assert encode(decode(body, ResidualNet, [Gate]), ResidualNet()) == body
    with pytest.raises(BadFile, match="uses a block that is not known here .* forms=.MyBlock"):
        decode(body, ResidualNet)


def test_its_execution_is_measured_and_shown(made, tmp_path):
    network, report = made
    test = task().test
    assert list(report.execution) == [AT] and 0 <= report.execution[AT] <= 1
    sentence = f"{AT} ran for {report.execution[AT]:.0%} of the samples"
    assert sentence in str(report) and sentence in report_html(report)
    (tmp_path / "report.json").write_text(report.as_json())
    assert read_report(tmp_path / "report.json") == report
    table = profile(network, test.inputs[:2], data=test.inputs)
    inside, outside = table.row(f"{AT}.conv"), table.row(f"{AT}.decision")
    assert inside.executed == pytest.approx(report.execution[AT]) and outside.executed is None
    skipped = sum(row.multiply_adds for row in table.rows if row.executed is not None) * (1 - inside.executed)
    assert table.expected_multiply_adds().value == pytest.approx(table.total("multiply_adds").value - skipped)
    assert "runs for" in table.text() and "of an average sample" in table.text()


def test_its_file_for_a_runtime_skips_the_work(made, tmp_path):
    network, _ = made
    row = cortado.export(network, task(), "onnxruntime", tmp_path)
    assert row.difference < 1e-5 and "compaction" in row.paths and "branches" in row.paths


def test_a_wrap_that_cannot_be_is_refused():
    network = ResidualNet()
    view = View(network, network, task().example)
    with pytest.raises(BadNetwork, match="there is no module 'blocks.9' to wrap. Its modules: blocks"):
        view.wrap("blocks.9", Gate(network.blocks[0], 8))
    with pytest.raises(BadNetwork, match="keeps another module than the one at 'blocks.1'"):
        view.wrap("blocks.1", Gate(network.blocks[0], 8))
    assert not blocks_in(network)
