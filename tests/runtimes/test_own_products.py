"""Layers as operators of Cortado in an .onnx file: the same outputs as torch, and a library that is checked."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cortado.errors import BadFile
from cortado.lowering.graph import exported
from cortado.lowering.lower import lowered
from cortado.lowering.products import Product
from cortado.native.build import PRODUCTS_LIBRARY, PRODUCTS_SOURCE, find_compiler
from cortado.native.product_layouts import ProductArrays, codebook_arrays, sparse_arrays
from cortado.runtimes.kernels.kernel import Kernel
from cortado.runtimes.onnx_file import write_onnx
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.own_products import SUM, library, own_layers_in, with_own_products

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")


def pruned(network: nn.Module, share: float = 0.8) -> nn.Module:
    """The network with so many zeros in every matrix and kernel."""
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        if weight.ndim > 1:
            weight.data *= torch.rand(weight.shape, generator=generator) >= share
    return network.eval()


def seeded(make) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def arrays_of(network: nn.Module, *paths: str, block: int = 1) -> dict[str, ProductArrays]:
    return {path: sparse_arrays(network.get_submodule(path).weight.detach().numpy(), block) for path in paths}


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True, eq=False)
class Given(Kernel):
    """Writes these layers, whether or not they would be faster."""

    name = "given"
    layers: dict[str, ProductArrays]
    rounds_inputs: bool

    def fits(self, product: Product) -> str | None:
        return None

    def emit(self, model: Any, products: Sequence[Product]) -> None:
        with_own_products(model, self.layers, self.rounds_inputs)


def own_file(network: nn.Module, example: torch.Tensor, layers, folder: Path, rounds_inputs: bool = False) -> Path:
    low = lowered(network, example)
    program = exported(low, example)
    file = write_onnx(low, program, folder / "net.onnx", "onnxruntime", {Given(layers, rounds_inputs): []})
    assert isinstance(library(folder), Path)
    return file


def assert_same(file: Path, network: nn.Module, inputs: torch.Tensor, rounding: float = 1e-5) -> None:
    (found,) = Onnxruntime().load(file, 1)(inputs)
    with torch.no_grad():
        wanted = network(inputs)
    assert found.shape == wanted.shape
    assert found.numel() == 0 or (found - wanted).abs().max() <= rounding * wanted.abs().max()


class Convolutions(nn.Module):
    """Strides, dilation, an uneven kernel, one without a bias, one with two readers, one with groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, 2, 1)
        self.inner = nn.Conv2d(24, 20, 3, padding=2, dilation=2, bias=False)
        self.point = nn.Conv2d(20, 20, 1)
        self.uneven = nn.Conv2d(20, 10, (2, 4), (1, 2), "valid")
        self.grouped = nn.Conv2d(10, 10, 3, groups=5)

    def forward(self, images):
        found = torch.relu(self.inner(torch.relu(self.first(images))))
        point = self.point(found)
        return self.grouped(torch.relu(self.uneven(torch.relu(point) + point)))


def test_convolutions_are_those_of_torch(tmp_path):
    network, example = pruned(seeded(Convolutions)), drawn(2, 3, 23, 26)
    layers = arrays_of(network, "first", "inner", "point", "uneven", "grouped")
    file = own_file(network, example, layers, tmp_path)
    assert own_layers_in(file) == dict.fromkeys(["first", "inner", "point", "uneven"], ("SparseConv", 32))
    for size in (1, 0, 7):
        assert_same(file, network, drawn(size, 3, 23, 26))
    kinds = [step.op_type for step in onnx.load(file).graph.node]
    assert kinds.count("Conv") == 1 and kinds.count("Relu") == 1


class Tokens(nn.Module):
    """Linear layers on the last of three axes: one called twice, one without a bias, two with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(48, 48), nn.Linear(48, 48, bias=False)
        self.three, self.four = nn.Linear(48, 20), nn.Linear(48, 20)
        self.four.weight = self.three.weight

    def forward(self, tokens):
        found = self.two(torch.relu(self.one(torch.relu(self.one(tokens)))))
        return self.three(found) + self.four(torch.relu(found))


@pytest.mark.parametrize("block", [1, 16])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (3, 5, 48)])
def test_sparse_linear_layers_are_those_of_torch(shape, block, tmp_path):
    network, example = pruned(seeded(Tokens)), drawn(*shape)
    layers = arrays_of(network, "one", "two", "three", block=block)
    layers["four"] = layers["three"]
    file = own_file(network, example, layers, tmp_path)
    assert set(own_layers_in(file)) == {"one", "two", "three", "four"}
    for size in (shape[0], 0, 32):
        assert_same(file, network, drawn(size, *shape[1:]))
    kinds = {step.op_type for step in onnx.load(file).graph.node}
    assert not kinds & {"Gemm", "MatMul"}


def test_one_weight_is_stored_once(tmp_path):
    network, example = pruned(seeded(Tokens)), drawn(2, 48)
    layers = arrays_of(network, "one", "three")
    layers["four"] = layers["three"]
    names = [one.name for one in onnx.load(own_file(network, example, layers, tmp_path)).graph.initializer]
    assert sum(name.endswith(".own_values") for name in names) == 2
    assert "three|four.own_values" in names


@pytest.mark.parametrize("values", [4, 16])
@pytest.mark.parametrize("rounds_inputs", [False, True])
def test_codebook_layers_are_those_of_torch(values, rounds_inputs, tmp_path):
    network, example = seeded(Tokens), drawn(2, 48)
    generator = np.random.default_rng(0)
    layers = {}
    for path in ("one", "two", "three"):
        weight = network.get_submodule(path).weight
        codes = generator.integers(0, values, tuple(weight.shape))
        layers[path] = codebook_arrays(codes, np.sort(generator.standard_normal(values).astype(np.float32)) * 0.1)
        weight.data = torch.from_numpy(layers[path].dense())
    layers["four"] = layers["three"]
    file = own_file(network, example, layers, tmp_path, rounds_inputs)
    assert set(own_layers_in(file).values()) == {("CodebookProduct", 2 if values <= 4 else 4)}
    for shape in ((1, 48), (9, 48), (0, 48)):
        assert_same(file, network, drawn(*shape), 0.03 if rounds_inputs else 1e-5)


def test_a_layer_with_another_weight_stays_dense(tmp_path):
    network, example = pruned(seeded(Tokens)), drawn(2, 48)
    layers = arrays_of(network, "one")
    layers["two"] = sparse_arrays(np.eye(48, dtype=np.float32))
    file = own_file(network, example, layers, tmp_path)
    assert set(own_layers_in(file)) == {"one"}
    assert_same(file, network, example)


def test_a_network_of_doubles_stays_dense(tmp_path):
    network, example = pruned(seeded(Tokens)).double(), drawn(2, 48).double()
    file = own_file(network, example, arrays_of(network, "one", "two"), tmp_path)
    assert not own_layers_in(file)
    assert_same(file, network, example)


@pytest.mark.parametrize("isa", ["0", "1", "2", "3"])
def test_every_generation_of_processors_runs_a_file(isa, tmp_path, monkeypatch):
    monkeypatch.setenv("CORTADO_ISA", isa)
    network, example = pruned(seeded(Tokens)), drawn(5, 48)
    layers = arrays_of(network, "one", "three")
    layers["four"] = layers["three"]
    two = codebook_arrays(network.two.weight.detach().sign().int().numpy() + 1, np.array([-0.25, 0, 0.25]))
    network.two.weight.data = torch.from_numpy(two.dense())
    assert_same(own_file(network, example, {**layers, "two": two}, tmp_path), network, example)


def test_many_threads_compute_the_same(tmp_path):
    network = pruned(seeded(lambda: nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512))))
    file = own_file(network, drawn(2, 512), arrays_of(network, "0", "2"), tmp_path)
    inputs = drawn(64, 512)
    (one,), (many,) = (Onnxruntime().load(file, threads)(inputs) for threads in (1, 3))
    assert torch.equal(one, many)


def test_one_session_takes_images_of_many_sizes_at_the_same_time(tmp_path):
    network = pruned(seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2))))
    file = own_file(network, drawn(2, 3, 9, 9), arrays_of(network, "0", "1"), tmp_path)
    proto = onnx.load(file)
    for place in (*proto.graph.input, *proto.graph.output):
        for number, axis in enumerate(place.type.tensor_type.shape.dim):
            axis.dim_param = f"{place.name}_{number}"
    onnx.save(proto, file)
    session = Onnxruntime().load(file, 1)
    images = [drawn(1, 3, 9 + number % 5, 12 - number % 4) for number in range(60)]
    with ThreadPoolExecutor(4) as pool:
        found = [one for (one,) in pool.map(session, images)]
    with torch.no_grad():
        for one, image in zip(found, images, strict=True):
            torch.testing.assert_close(one, network(image), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small file."""
    folder = tmp_path_factory.mktemp("made")
    network = pruned(seeded(lambda: nn.Sequential(nn.Linear(8, 8))))
    own_file(network, drawn(2, 8), arrays_of(network, "0"), folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


def test_a_missing_library_is_a_sentence_with_the_command(folder):
    (folder / PRODUCTS_LIBRARY).unlink()
    with pytest.raises(BadFile, match=r"libcortado_products.so is missing beside it. Build it again in .*: g\+\+ -O3"):
        Onnxruntime().load(folder / "net.onnx", 1)
    (folder / PRODUCTS_SOURCE).unlink()
    with pytest.raises(BadFile, match="missing beside it. Export the network again"):
        Onnxruntime().load(folder / "net.onnx", 1)


def test_an_altered_library_is_not_loaded(folder):
    whole = (folder / PRODUCTS_LIBRARY).read_bytes()
    (folder / PRODUCTS_LIBRARY).write_bytes(whole[:-1] + b"?")
    with pytest.raises(BadFile, match="was altered.*Build it again"):
        Onnxruntime().load(folder / "net.onnx", 1)
    (folder / PRODUCTS_LIBRARY).write_bytes(whole)
    (folder / SUM).unlink()
    with pytest.raises(BadFile, match="was altered"):
        Onnxruntime().load(folder / "net.onnx", 1)


def test_code_of_a_stranger_is_not_run(folder):
    """Cortado's own library computes the file; one of another machine, too, is no obstacle."""
    (folder / PRODUCTS_LIBRARY).write_bytes(b"\x7fELF of a stranger")
    done = subprocess.run(["sha256sum", PRODUCTS_LIBRARY], cwd=folder, capture_output=True, text=True, check=True)
    (folder / SUM).write_text(done.stdout)
    (found,) = Onnxruntime().load(folder / "net.onnx", 1)(torch.zeros(1, 8))
    assert found.shape == (1, 8)


def test_a_machine_without_a_library_of_ours_says_what_to_install(folder, monkeypatch):
    monkeypatch.setenv("CORTADO_NATIVE", "0")
    with pytest.raises(BadFile, match="no library for them here: native kernels are switched off.*install a wheel"):
        Onnxruntime().load(folder / "net.onnx", 1)


def test_the_command_in_the_source_builds_the_library(folder):
    (folder / PRODUCTS_LIBRARY).unlink()
    command = (folder / PRODUCTS_SOURCE).read_text().partition("\n")[0].removeprefix("// Build it: ")
    subprocess.run(command.replace("-O3", "-O0"), shell=True, cwd=folder, check=True, capture_output=True)
    (found,) = Onnxruntime().load(folder / "net.onnx", 1)(torch.zeros(1, 8))
    assert found.shape == (1, 8)


def test_inputs_of_another_width_are_an_error_of_the_runtime(folder):
    proto = onnx.load(folder / "net.onnx")
    for axis in proto.graph.input[0].type.tensor_type.shape.dim:
        axis.dim_param = "any"
    onnx.save(proto, folder / "net.onnx")
    session = Onnxruntime().load(folder / "net.onnx", 1)
    with pytest.raises(Exception, match="last axis of the input has 5 numbers, and the weight 8 columns"):
        session(torch.zeros(1, 5))


def test_a_weight_that_does_not_fit_is_an_error_of_the_runtime(folder):
    proto = onnx.load(folder / "net.onnx")
    places = next(one for one in proto.graph.initializer if one.name.endswith(".own_places"))
    places.CopyFrom(onnx.numpy_helper.from_array(np.full(places.dims, 9, np.uint16), places.name))
    onnx.save(proto, folder / "net.onnx")
    with pytest.raises(BadFile, match="cortado.SparseProduct: a place is outside the weight"):
        Onnxruntime().load(folder / "net.onnx", 1)


def test_no_compiler_is_a_reason_and_no_library(tmp_path, monkeypatch):
    monkeypatch.setenv("CORTADO_NATIVE", "0")
    assert library(tmp_path) == "native kernels are switched off by CORTADO_NATIVE=0"
    assert not list(tmp_path.iterdir())


def test_the_script_of_a_bundle_registers_the_library(folder):
    script = f"from pathlib import Path\nimport numpy as np\nFILE = Path({str(folder / 'net.onnx')!r})\n"
    script += f"{Onnxruntime.script}\nprint(predict(np.zeros((2, 8), np.float32)).shape)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 8)"
