"""The face: every public name has a docstring whose example runs, and says what it is to type checkers."""

import dataclasses
import doctest
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import cortado
from cortado.engine.bundle import write_bundle
from cortado.importance.random import Random
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.training.loop import train
from cortado.training.training import Training
from tests.fresh import fresh
from tests.laws.tiny_nets import BY_NAME

ROOT = Path(__file__).parents[1]
JOB = """
from tests.laws.tiny_nets import BY_NAME
def make():
    return BY_NAME["mlp"].make(), BY_NAME["mlp"].task()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a file and a bundle, and what the examples speak of."""
    folder = tmp_path_factory.mktemp("face")
    (folder / "face_job.py").write_text(JOB)
    net, task = BY_NAME["mlp"].make(), BY_NAME["mlp"].task()
    small, report = cortado.compress(net, task, "quantize/weights bits=4")
    cortado.save(small, folder / "net.cortado", original=net)
    Onnxruntime().lower(net, task.example, folder)
    write_bundle(folder / "runs/latest", small, net, report, {"job": "face_job:make"})
    known: dict[str, Any] = {name: torch.zeros(4, 12) for name in ("inputs", "more", "last", "pixels")}
    known |= {"torch": torch}
    known |= {name: torch.zeros(4, dtype=torch.long) for name in ("labels", "more_labels", "last_labels")}
    return folder, {
        **known, "cortado": cortado, "net": net, "task": task, "small": small, "report": report,
        "stated": report.original_validation, "PruneWeights": PruneWeights, "QuantizeWeights": QuantizeWeights, "Random": Random,
    }  # fmt: skip


@pytest.fixture
def names(made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the examples speak of, in a folder of their own."""
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return dict(made[1])


def knowing(task: cortado.Task) -> torch.nn.Module:
    """A network that has learned the test data."""
    network = BY_NAME["mlp"].make()
    train(network, dataclasses.replace(task, train=task.test), Training(epochs=100, lr=0.02))
    return network


@pytest.mark.parametrize("name", cortado.__all__)
def test_public_name_has_an_example_that_runs(name: str, names: dict[str, Any]) -> None:
    if name == "bench":
        cortado.export(names["net"], names["task"], "onnxruntime", "exported")
    if name == "kept_gain":
        names |= {"alone": names["net"], "taught": knowing(names["task"]), "teacher": knowing(names["task"])}
    if name == "search":
        pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")
    text = inspect.getdoc(getattr(cortado, name)) or ""
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    assert test.examples, name
    describe: list[str] = []
    found = doctest.DocTestRunner(verbose=False).run(test, out=describe.append)
    assert found.failed == 0, "".join(describe)


def test_face_has_functions_and_not_modules() -> None:
    for name in ("bench", "compress", "export", "plan", "profile", "search", "verify"):
        assert inspect.isfunction(getattr(cortado, name)), name


def test_package_says_that_it_is_typed() -> None:
    assert (ROOT / "cortado" / "py.typed").is_file()
    assert re.search(r'cortado = \[[^]]*"\*\.typed"', (ROOT / "pyproject.toml").read_text())


def test_library_says_nothing_until_logging_is_configured(
    names: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    cortado.compress(names["net"], names["task"], "quantize/weights bits=4")
    assert capfd.readouterr() == ("", "")


def test_library_tells_a_configured_log_of_each_stage(names: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "cortado"):
        _, report = cortado.compress(names["net"], names["task"], "prune/weights keep=0.5 | quantize/weights bits=4")
    assert [line.split(":")[0] for line in caplog.messages] == [
        f"stage {number} of 2 {stage.name}" for number, stage in enumerate(report.stages, 1)
    ]


def test_runtime_that_is_not_known_by_name_is_refused_in_words(names: dict[str, Any]) -> None:
    with pytest.raises(cortado.CortadoError, match="no runtime 'onnxruntim'. Did you mean onnxruntime"):
        cortado.export(names["net"], names["task"], "onnxruntim", "exported")


class Backwards(cortado.Importance):
    """The larger, the less worth; `offset` changes nothing."""

    def __init__(self, offset: float = 2.0) -> None:
        self.offset = offset

    def of(self, weights: list[Any], view: Any, task: Any) -> list[torch.Tensor]:
        return [self.offset / (1 + weight.dense().abs()) for weight in weights]


@pytest.mark.parametrize("by", [Backwards, Backwards(), f"{__name__}:Backwards"])
def test_score_is_given_by_class_instance_or_name(names: dict[str, Any], by: Any) -> None:
    net = names["net"]
    small, report = cortado.compress(net, names["task"], [PruneWeights(keep=0.5, by=by, where="0")])
    before, after = net[0].weight.detach().abs().flatten(), small[0].weight.detach().flatten() != 0
    assert before[after].max() <= before[~after].min() and int(after.sum()) == len(after) // 2
    assert "Backwards" in report.stages[0].knobs["by"]


def test_import_of_the_command_line_leaves_the_face_as_it_is() -> None:
    code = "import cortado, cortado.cli, inspect; assert inspect.isfunction(cortado.verify) and inspect.isfunction(cortado.bench)"
    assert fresh(code).returncode == 0
