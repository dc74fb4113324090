"""Files of stages: the loop takes the same paths as PyTorch, one sample at a time, in the session and in run.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.engine.bundle import script
from cortado.errors import BadFile, BadNetwork
from cortado.lowering.graph import one_sample
from cortado.lowering.lower import lowered
from cortado.runtimes.export import export
from cortado.runtimes.runtime import Running, runtime_by_name
from cortado.runtimes.staged import EVERYTHING, PLAN, STAGES, StagedSession, write_stages
from cortado.task.data import Data
from cortado.task.task import Task
from tests.laws.tiny_nets import BY_NAME
from tests.lowering.test_stages import NETWORKS, exits, gates, in_integers, staged
from tests.parts.blocks.test_exit import with_exits
from tests.runtimes.test_rows import INPUTS

RUNTIMES = ["litert", "executorch"]
pytestmark = pytest.mark.filterwarnings("ignore")


class Counted:
    """A part in PyTorch that counts its calls."""

    def __init__(self, file: Path) -> None:
        self.network, self.calls, self.inputs = torch.load(file, weights_only=False), 0, ()

    def __call__(self, *activations):
        self.calls += 1
        with torch.no_grad():
            return self.network(*activations)


def in_pytorch(network, folder):
    """The session of a network whose parts are files of PyTorch."""
    file = write_stages(
        staged(lowered(network, INPUTS[:2])), folder / "net.pt", lambda part, given, own: torch.save(part, own)
    )
    return StagedSession(file, Counted)


def installed(name):
    runtime = runtime_by_name(name)
    if not runtime.lowers():
        pytest.skip(f"{name} is not installed")
    return runtime


def other_parts(session):
    return [part.calls for name, part in session.parts.items() if name != "net.pt"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loop_takes_the_paths_of_pytorch(name, tmp_path):
    network = NETWORKS[name]()
    running = Running(in_pytorch(network, tmp_path))
    for batch in (1, 7, 32, 0):
        with torch.no_grad():
            found, wanted = running(INPUTS[:batch]), network(INPUTS[:batch])
        for made, right in zip(found, wanted, strict=True) if isinstance(wanted, tuple) else [(found, wanted)]:
            assert made.shape == right.shape and torch.allclose(made, right, atol=1e-5)


@pytest.mark.parametrize(("threshold", "runs"), [(0.0, [0, 0]), (2.0, [32, 32])])
def test_parts_run_only_for_samples_that_continue(threshold, runs, tmp_path):
    session = in_pytorch(with_exits(threshold)[0], tmp_path)
    Running(session)(INPUTS)
    assert session.parts["net.pt"].calls == 32 and other_parts(session) == runs


def test_neighbours_change_nothing(tmp_path):
    running = Running(in_pytorch(exits(), tmp_path))
    alone = torch.cat([running(image) for image in INPUTS.split(1)])
    assert torch.equal(running(INPUTS), alone) and torch.equal(running(INPUTS.flip(0)), alone.flip(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan["steps"][0].update(file="../net.pt"), "no file of this folder"),
        (lambda plan: plan["steps"][1].update(rows="other"), "nothing makes 'other'"),
        (lambda plan: plan["steps"][1].update(steps=[]), "nothing makes 'linear_1'|nothing makes 'where'"),
        (lambda plan: plan["inputs"][0].update(dtype="nn"), "no known type"),
        (lambda plan: plan.pop("outputs"), "KeyError"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(change, message, tmp_path):
    in_pytorch(exits(), tmp_path)
    plan = json.loads((tmp_path / PLAN).read_text())
    change(plan)
    (tmp_path / PLAN).write_text(json.dumps(plan))
    with pytest.raises(BadFile, match=message):
        StagedSession(tmp_path / "net.pt", Counted)


def test_a_part_that_cannot_be_written_is_named(tmp_path):
    def write(part, given, file):
        if file.stem == "net_1":
            raise RuntimeError("no such operator")

    with pytest.raises(BadNetwork, match=r"net_1.pt cannot be written: RuntimeError: no such operator"):
        write_stages(staged(exits()), tmp_path / "net.pt", write)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_files_take_the_same_paths(runtime, name, tmp_path):
    network, target = NETWORKS[name](), installed(runtime)
    file = target.with_paths(STAGES).lower(lowered(network, INPUTS[:2]), INPUTS[:2], tmp_path)
    running = Running(target.load(file, 1))
    assert isinstance(running.session, StagedSession) and len(running.session.parts) > 2
    for batch in (1, 7, 32, 0):
        with torch.no_grad():
            found, wanted = running(INPUTS[:batch]), network(INPUTS[:batch])
        for made, right in zip(found, wanted, strict=True) if isinstance(wanted, tuple) else [(found, wanted)]:
            assert made.shape == right.shape and torch.allclose(made, right, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_files_in_integers_compute_what_pytorch_computes(runtime, tmp_path):
    target, net = installed(runtime), BY_NAME["residual"]
    network = in_integers(*with_exits())
    inputs = net.task().test.inputs
    file = target.with_paths(STAGES).lower(lowered(network, net.example), net.example, tmp_path)
    with torch.no_grad():
        wanted, found = network(inputs), Running(target.load(file, 1))(inputs)
    # A value between two steps may be rounded either way.
    assert float((found - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_export_keeps_the_faster_form_and_says_so(runtime, tmp_path):
    target, network = installed(runtime), exits()
    labels = network(INPUTS).argmax(1)
    task = Task(*[Data(INPUTS, labels) for _ in range(3)])
    row = export(network, task, target, tmp_path / "out")
    assert EVERYTHING in row.paths and STAGES in row.paths and row.difference < 1e-4
    # run.py and the session agree, with and without a plan.
    for form in (EVERYTHING, STAGES):
        own = tmp_path / form / target.folder_name()
        own.mkdir(parents=True)
        file = target.with_paths(form).lower(lowered(network, INPUTS[:2]), INPUTS[:2], own)
        names = {"__file__": str(tmp_path / form / "run.py"), "__name__": "run"}
        exec(script([target]), names)  # noqa: S102 - the bundle's own program
        found = names["predict"](INPUTS[:7].numpy())
        assert np.allclose(found, Running(target.load(file, 1))(INPUTS[:7]).numpy(), atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_cut_in_vain_is_one_file(runtime, tmp_path):
    target = installed(runtime)
    plain = gates().stem
    file = target.with_paths(STAGES).lower(plain, one_sample(INPUTS), tmp_path)
    assert not (tmp_path / PLAN).exists() and file.is_file()
