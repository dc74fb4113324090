"""Every runtime that is installed here: outputs as PyTorch's, any batch, several inputs and outputs; what is refused."""

import importlib.util

import pytest
import torch
from torch import nn

from cortado.errors import BadFile, BadNetwork, BadValue, MissingPackage
from cortado.lowering.lower import lowered
from cortado.nets.resnet import resnet_20
from cortado.network.coupling.answers import difference
from cortado.running.trees import tensors_in
from cortado.runtimes.runtime import Running, installed, known_runtimes, rivals, runtime_by_name, runtime_of_file
from tests.fresh import fresh
from tests.laws.tiny_nets import TINY_NETS
from tests.runtimes.networks import Pair

ALL = ("executorch", "litert", "onnxruntime", "openvino", "torch_compiled", "torch_eager")
HERE = [runtime for runtime in rivals() if runtime.name() != "executorch"]
NETWORKS = {net.name: (net.make, net.example) for net in TINY_NETS}
NETWORKS["resnet_20"] = (resnet_20, torch.randn(2, 3, 32, 32))
NETWORKS["pair"] = (Pair, (torch.randn(2, 4), torch.randn(2, 3)))


def test_runtimes_are_found_by_their_files():
    assert tuple(known_runtimes()) == ALL
    assert [runtime_by_name(name).name() for name in ALL] == list(ALL)


def test_torch_onnx_and_openvino_are_tested_here():
    assert {"torch_eager", "onnxruntime", "openvino"} <= {runtime.name() for runtime in HERE}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("runtime", HERE, ids=lambda runtime: runtime.name())
def test_file_gives_what_pytorch_gives_for_any_batch(runtime, network, tmp_path):
    make, example = NETWORKS[network]
    original = make().eval()
    file = runtime.lower(lowered(original, example), example, tmp_path)
    session = runtime.load(file, 1)
    assert file.suffix == runtime.suffix
    parts = example if isinstance(example, tuple) else (example,)
    assert [port.shape[1:] for port in session.inputs] == [tuple(part.shape[1:]) for part in parts]
    for batch in (1, 3, 8):
        generator = torch.Generator().manual_seed(batch)
        inputs = tuple(torch.randn(batch, *part.shape[1:], generator=generator) for part in parts)
        with torch.no_grad():
            wanted = tensors_in(original(*inputs))
        assert difference(tensors_in(Running(session)(*inputs)), wanted) < 1e-5


def test_threads_are_put_back(tmp_path):
    runtime, network = runtime_by_name("torch_eager"), nn.Linear(3, 2)
    session = runtime.load(runtime.lower(network, torch.randn(2, 3), tmp_path), 2)
    before = torch.get_num_threads()
    session(torch.randn(2, 3))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert", "executorch"])
def test_missing_runtime_names_the_extra(name, monkeypatch, tmp_path):
    found = importlib.util.find_spec
    package = runtime_by_name(name).package
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *rest: None if wanted == package else found(wanted, *rest)
    )
    extra = {"onnxruntime": "onnx"}.get(name, name)
    with pytest.raises(MissingPackage, match=rf"pip install -e '\.\[{extra}\]'"):
        installed([name])
    with pytest.raises(MissingPackage):
        runtime_by_name(name).lower(nn.Linear(3, 2), torch.randn(2, 3), tmp_path)
    assert name not in [runtime.name() for runtime in rivals()]
    assert not list(tmp_path.iterdir())


def test_litert_without_its_converter_says_where_it_belongs(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    spec = found("json")
    answers = {"ai_edge_litert": spec, "litert_torch": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *rest: answers.get(wanted, found("json")))
    with pytest.raises(MissingPackage, match="make a separate environment"):
        runtime_by_name("litert").lower(nn.Linear(3, 2), torch.randn(2, 3), tmp_path)
    with pytest.raises(MissingPackage, match="the converter is missing"):
        installed(["litert"])


def test_unknown_runtime_is_refused_with_a_near_one():
    with pytest.raises(BadValue, match="Did you mean onnxruntime"):
        runtime_by_name("onnxruntim")


def test_file_of_no_runtime_is_refused(tmp_path):
    with pytest.raises(BadValue, match=r"\.pth"):
        runtime_of_file(tmp_path / "net.pth")
    assert runtime_of_file(tmp_path / "net.pt2").name() == "torch_eager"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch_eager"])
def test_broken_file_is_refused(name, tmp_path):
    runtime = runtime_by_name(name)
    file = tmp_path / f"net{runtime.suffix}"
    with pytest.raises(BadFile):
        runtime.load(file, 1)
    file.write_bytes(b"not a network")
    with pytest.raises(BadFile, match=name):
        runtime.load(file, 1)


class Rare(nn.Module):
    """An operator that exporters do not know."""

    def forward(self, activation):
        return torch.special.bessel_y1(activation.abs() + 1)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_operator_that_a_runtime_lacks_is_named(name, tmp_path):
    with pytest.raises(BadNetwork, match="bessel_y1"):
        runtime_by_name(name).lower(Rare(), torch.randn(2, 3), tmp_path)


def test_nothing_is_told_of_what_openvino_converts():
    code = (
        "import sys, torch; from torch import nn; from pathlib import Path; import tempfile;"
        "from cortado.runtimes.openvino import Openvino; folder = tempfile.TemporaryDirectory();"
        "Openvino().lower(nn.Linear(3, 2).eval(), torch.randn(2, 3), Path(folder.name));"
        "print([name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    shown = fresh(code)
    assert shown.stdout.strip() == "[]", shown.stderr


def test_fixed_batch_is_filled_up_and_cut():
    class Two:
        inputs = (type("Port", (), {"shape": (2, 3), "name": "values"})(),)

        def __call__(self, activation):
            assert activation.shape == (2, 3)
            return (activation * 2,)

    inputs = torch.randn(5, 3)
    assert torch.equal(Running(Two())(inputs), inputs * 2)


def test_nothing_optional_is_imported_before_it_is_used():
    code = (
        "import sys, cortado, cortado.cli; from cortado.runtimes.runtime import known_runtimes; known_runtimes();"
        "print([n for n in ('onnx', 'onnxruntime', 'openvino', 'ai_edge_litert', 'executorch') if n in sys.modules])"
    )
    shown = fresh(code)
    assert shown.stdout.strip() == "[]", shown.stderr
