"""Weights of few bits in files of runtimes: packed, small, and the same network; what is not packed is named."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from cortado.lowering.lower import lowered
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.parts.forms.attach import attach
from cortado.parts.forms.quantized import Quantized
from cortado.report.pages.clocks import exported_text
from cortado.report.record import Exported
from cortado.report.report import export_row
from cortado.runtimes.export import export
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.openvino import Openvino
from cortado.runtimes.runtime import Runtime, runtime_by_name
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME

RUNTIMES = ("onnxruntime", "openvino")
every_runtime = pytest.mark.parametrize("name", RUNTIMES)


class Bent(nn.Module):
    """Linear layers on the last axis, one called twice, one without a bias, two with one weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.three, self.table = nn.Linear(width, 10), nn.Embedding(10, width)

    def forward(self, activation):
        activation = torch.relu(self.one(torch.relu(self.one(activation))))
        return self.three(torch.relu(self.two(activation))) + self.table.weight.sum()


def bent(bits: int = 4, layout: str = "group", group: int = 16, symmetric: bool = True, width: int = 64) -> Bent:
    torch.manual_seed(0)
    made = Bent(width).eval()
    for layer in (made.one, made.two, made.three):
        attach(layer, "weight", Quantized.of(layer.weight.detach(), bits, layout, group, symmetric))
    return made


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def far(runtime: Runtime, network: nn.Module, inputs: torch.Tensor, folder: Path) -> float:
    """How far the file is from the network, as a share of the largest output."""
    file = runtime.lower(lowered(network, inputs), inputs, folder)
    (found,) = runtime.load(file, 1)(inputs)
    with torch.no_grad():
        wanted = network(inputs)
    return float((found - wanted).abs().max() / wanted.abs().max())


def packed_in_file(runtime: Runtime, folder: Path) -> dict[str, int]:
    """The layers that the file keeps packed, and their bits."""
    found = runtime.placed(next(folder.glob(f"*{runtime.suffix}")))
    return {path: ran.bits for path, ran in found.items() if ran.kernel == "packed"}


def packed_rows(row: Exported) -> dict[str, int]:
    """The layers that a row says are packed, and their bits."""
    return {one.layer: one.bits for one in row.placements if one.kernel == "packed"}


def whys(row: Exported) -> dict[str, str]:
    return {one.layer: one.why for one in row.placements if one.why}


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".xml")


class Sorts(nn.Sequential):
    """A layer for every sort of codes: bits, layout, group, symmetric."""

    SORTS = (
        (4, "group", 16, True), (2, "group", 64, True), (1, "group", 32, True), (4, "group", 16, False),
        (2, "group", 16, False), (3, "group", 48, True), (4, "channel", 0, True), (2, "tensor", 0, False),
    )  # fmt: skip

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(*[nn.Linear(96, 96, bias=number % 2 == 0) for number in range(len(self.SORTS))])
        for layer, (bits, layout, group, symmetric) in zip(self, self.SORTS, strict=True):
            attach(layer, "weight", Quantized.of(layer.weight.detach(), bits, layout, group, symmetric))
        self.eval()


@every_runtime
@pytest.mark.parametrize("shape", [(3, 96), (2, 3, 96)])
def test_file_agrees_and_holds_packed_codes(name, shape, tmp_path):
    runtime = runtime_by_name(name)
    assert far(runtime, Sorts(), drawn(*shape), tmp_path) < 1e-5
    least = 2 if name == "openvino" else 4
    # OpenVINO decodes rows that do not fill whole blocks to floats when it loads them.
    whole = [number for number, sort in enumerate(Sorts.SORTS) if name != "openvino" or sort[2] in (16, 32, 48)]
    wanted = {str(number): max(least, 2 if Sorts.SORTS[number][0] < 3 else 4) for number in whole}
    assert packed_in_file(runtime, tmp_path) == wanted


@every_runtime
def test_rows_that_end_in_a_short_block_agree(name, tmp_path):
    assert far(runtime_by_name(name), bent(width=70, symmetric=False), drawn(2, 3, 70), tmp_path) < 1e-5


@every_runtime
def test_file_is_small(name, tmp_path):
    runtime, original, shape = runtime_by_name(name), Bent(512).eval(), (2, 3, 512)
    (tmp_path / "original").mkdir()
    (tmp_path / "small").mkdir()
    runtime.lower(lowered(original, drawn(*shape)), drawn(*shape), tmp_path / "original")
    runtime.lower(lowered(bent(group=128, width=512), drawn(*shape)), drawn(*shape), tmp_path / "small")
    # 4.25 bits a weight in place of 32, and an embedding in floats.
    assert weight_bytes(tmp_path / "small") < weight_bytes(tmp_path / "original") / 6


@every_runtime
def test_tied_weights_are_written_once_and_agree(name, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    form = Quantized.of(drawn(64, 64), 4, "group", 32)
    for layer in (network[0], network[2]):
        attach(layer, "weight", form)
    runtime = runtime_by_name(name)
    assert far(runtime, network, drawn(2, 64), tmp_path) < 1e-5
    assert packed_in_file(runtime, tmp_path) == {"0": 4, "2": 4}
    assert weight_bytes(tmp_path) < 64 * 64 * 1.5 + 4000


@every_runtime
def test_weight_that_an_embedding_reads_too_is_right_in_both(name, tmp_path):
    network = bent(width=64)
    form = Quantized.of(drawn(10, 64), 4, "channel")
    attach(network.three, "weight", form)
    attach(network.table, "weight", form)
    assert far(runtime_by_name(name), network, drawn(2, 64), tmp_path) < 1e-5


@pytest.mark.parametrize("symmetric", [True, False])
def test_embeddings_are_packed_and_share_the_codes_of_a_tied_head(symmetric, tmp_path):
    class Words(nn.Module):
        """An embedding, a layer, and a head with the embedding's weight."""

        def __init__(self):
            super().__init__()
            self.words, self.one, self.head = nn.Embedding(100, 64), nn.Linear(64, 64), nn.Linear(64, 100, bias=False)

        def forward(self, tokens):
            return self.head(torch.relu(self.one(self.words(tokens))))

    torch.manual_seed(0)
    network = Words().eval()
    form = Quantized.of(drawn(100, 64), 4, "group", 32, symmetric)
    attach(network.words, "weight", form)
    attach(network.head, "weight", form)
    tokens = torch.arange(12).reshape(2, 6) * 8
    assert far(Onnxruntime(), network, tokens, tmp_path) < 1e-5
    assert packed_in_file(Onnxruntime(), tmp_path) == {"words": 4, "head": 4}
    assert weight_bytes(tmp_path) < 4 * 64 * 65 + 100 * 64 // 2 + 100 * 2 * 5 + 4000


@pytest.mark.parametrize("symmetric", [True, False])
@every_runtime
def test_embedding_alone_is_packed(name, symmetric, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(500, 48), nn.Linear(48, 4)).eval()
    attach(network[0], "weight", Quantized.of(drawn(500, 48), 2, "group", 16, symmetric))
    tokens = torch.arange(12).reshape(2, 6)
    assert far(runtime_by_name(name), network, tokens, tmp_path) < 1e-5
    assert packed_in_file(runtime_by_name(name), tmp_path) == {"0": 4}
    # Four bits and a scale for 16 entries; a quarter of it for the names and operators.
    assert weight_bytes(tmp_path) < 500 * 48 * (4 + 32 / 16 + 1) / 8 + 6000


def test_openvino_looks_up_packed_rows_as_they_are(tmp_path):
    """The table is not decoded to floats when the file is loaded."""
    network = nn.Sequential(nn.Embedding(500, 48), nn.Linear(48, 4)).eval()
    attach(network[0], "weight", Quantized.of(drawn(500, 48), 4, "group", 16))
    tokens = torch.arange(12).reshape(2, 6)
    file = Openvino().lower(lowered(network, tokens), tokens, tmp_path)
    session = Openvino().load(file, 1)
    session(tokens)
    kinds = {
        str(step.get_output_element_type(0))
        for step in session.runtime_model().get_ordered_ops()
        if step.get_output_size() and list(step.get_output_partial_shape(0).get_min_shape()) == [500, 48]
    }
    assert kinds and not any("float" in kind for kind in kinds)


def test_products_may_round_what_they_read_when_they_are_allowed_to(tmp_path):
    runtime, inputs = Onnxruntime(rounds_inputs=True), drawn(4, 64)
    assert far(runtime, bent(bits=2, group=32), inputs, tmp_path) < 0.1
    assert packed_in_file(runtime, tmp_path).items() >= {"one": 2, "two": 2, "three": 2}.items()
    steps = onnx.load(tmp_path / "net.onnx").graph.node
    assert [fact.i for step in steps for fact in step.attribute if fact.name == "accuracy_level"] == [4] * 4


@every_runtime
def test_product_with_another_weight_is_left_alone(name, tmp_path):
    inputs = drawn(2, 64)
    low = lowered(bent(), inputs)
    with torch.no_grad():
        low.one.weight[3, 5] += 0.5
    runtime = runtime_by_name(name)
    file = runtime.lower(low, inputs, tmp_path)
    assert set(packed_in_file(runtime, tmp_path)) == {"two", "three"}
    with torch.no_grad():
        torch.testing.assert_close(runtime.load(file, 1)(inputs)[0], low(inputs), rtol=1e-4, atol=1e-4)


def task_of(*shape: int) -> Task:
    values = drawn(48, *shape)
    parts = [Data(values[a:b], torch.zeros(b - a, dtype=torch.long)) for a, b in ((0, 16), (16, 32), (32, 48))]
    return Task(*parts)


@every_runtime
def test_export_says_what_is_packed_and_what_is_not(name, tmp_path):
    network = bent()
    attach(network.two, "weight", Quantized.of(network.two.weight.detach(), 4, "group", 12))
    row = export(network, task_of(64), runtime_by_name(name), tmp_path / "out")
    assert packed_rows(row) == {"one": 4, "three": 4}
    assert whys(row) == {"two": "packed: no power of two from 16 on divides its groups of 12"}
    facts = json.loads((tmp_path / "out/export.json").read_text())
    assert facts["placements"] == [one.__dict__ for one in row.placements]
    text = exported_text(row, "accuracy", "%")
    assert "kernel: packed, 4 bits 68.3 %, float32 31.7 %" in text and "two in float32 (packed: no power of two" in text
    assert export_row(json.loads(json.dumps(asdict(row)))) == row


def test_runtime_that_keeps_nothing_packed_says_so(tmp_path):
    row = export(bent(), task_of(64), runtime_by_name("torch_eager"), tmp_path / "out")
    assert packed_rows(row) == {}
    assert whys(row) == dict.fromkeys(("one", "two", "three"), "torch_eager computes in floats")


def test_export_of_a_network_without_few_bits_says_nothing_of_them(tmp_path):
    row = export(BY_NAME["mlp"].make(), BY_NAME["mlp"].task(), Onnxruntime(), tmp_path / "out")
    assert not whys(row) and "kernel" not in exported_text(row, "accuracy", "%")


def test_merged_siblings_are_named_where_they_are_no_more_packed(tmp_path):
    class Siblings(nn.Module):
        """Two layers that read one activation."""

        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(64, 32), nn.Linear(64, 32)

        def forward(self, activation):
            return self.left(activation) + self.right(activation)

    network = Siblings().eval()
    for layer in network.children():
        attach(layer, "weight", Quantized.of(layer.weight.detach(), 4, "channel"))
    row = export(network, task_of(64), Onnxruntime(), tmp_path / "out", merge=True)
    assert packed_rows(row) == {} and whys(row) == dict.fromkeys(("left", "right"), "it was merged or rewritten")
    assert packed_rows(export(network, task_of(64), Onnxruntime(), tmp_path / "more")) == {"left": 4, "right": 4}


@every_runtime
def test_network_that_is_one_layer_is_packed(name, tmp_path):
    network = nn.Linear(64, 8).eval()
    attach(network, "weight", Quantized.of(network.weight.detach(), 4, "channel"))
    assert packed_rows(export(network, task_of(64), runtime_by_name(name), tmp_path / "out")) == {"": 4}


@every_runtime
def test_layers_between_rounded_activations_are_codes_of_8_bits_or_packed(name, tmp_path):
    """ONNX Runtime would round weights in floats once more there, as groups have no one scale for a row."""
    torch.manual_seed(0)
    original, task = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)).eval(), task_of(64)
    network = copy.deepcopy(original)
    groups = QuantizeWeights(bits=4, per="group", group=16, where="0.weight")
    for method in (groups, QuantizeWeights(bits=4, where="2.weight"), QuantizeActivations()):
        method.apply(View(network, original, task.example), task)
    row = export(network, task, runtime_by_name(name), tmp_path / "out", tolerance=0.05)
    assert packed_rows(row) == {"0": 4}
    assert whys(row)["0"] == "int8: its weight has no 8-bit codes with one scale a row"


def test_openvino_keeps_codes_packed_when_it_has_loaded_them(tmp_path):
    runtime, inputs = Openvino(), drawn(2, 512)
    file = runtime.lower(lowered(bent(width=512, group=64), inputs), inputs, tmp_path)
    steps = runtime.load(file, 1).runtime_model().get_ordered_ops()
    few = [step for step in steps if step.get_output_size() and step.get_output_element_type(0).bitwidth == 4]
    assert sum(len(step.get_output_shape(0)) > 1 for step in few) >= 3
