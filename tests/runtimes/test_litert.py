"""LiteRT's files say what they take and give, and what they compute in floats; its interpreter is played by a fake."""

import json
import sys
import types
import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

import cortado
from cortado.report.pages.clocks import exported_text
from cortado.report.record import Edge
from cortado.report.report import export_row
from cortado.runtimes.file_bench import bench_file
from cortado.runtimes.litert import Litert
from tests.laws.tiny_nets import BY_NAME
from tests.runtimes.test_edges import picture_task

SCALE, ZERO = 0.05, -14
FLOAT_LAYER = "FULLY_CONNECTED (Mlp/linear_2)"


def tensor(
    index: int, name: str, dtype: Any, shape: tuple[int, ...], grid: tuple[float, int] = (0.0, 0)
) -> dict[str, Any]:
    return {"index": index, "name": name, "dtype": dtype, "shape_signature": np.array(shape), "quantization": grid}


class FakeInterpreter:
    """A file that takes whole numbers, gives floats, and computes its last layer in floats."""

    network: Any = None

    def __init__(self, file: str, num_threads: int) -> None:
        self.given = tensor(0, "args_0", np.int8, (1, 12), (SCALE, ZERO))
        self.found = tensor(3, "output_0", np.float32, (1, 4))

    def allocate_tensors(self) -> None:
        """Nothing to lay out."""

    def get_input_details(self) -> list[dict[str, Any]]:
        return [self.given]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [self.found]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        hidden = tensor(1, "Mlp/linear_0", np.int8, (1, 16), (0.1, 0))
        return [
            self.given,
            hidden,
            tensor(2, "Mlp/dequantized", np.float32, (1, 16)),
            {**self.found, "name": "Mlp/linear_2"},
        ]

    def _get_ops_details(self) -> list[dict[str, Any]]:
        names = ("FULLY_CONNECTED", "DEQUANTIZE", "FULLY_CONNECTED")
        return [{"op_name": name, "inputs": [at], "outputs": [at + 1]} for at, name in enumerate(names)]

    def set_tensor(self, index: int, codes: Any) -> None:
        assert index == 0 and codes.dtype == np.int8
        self.values = (codes.astype(np.float32) - ZERO) * np.float32(SCALE)

    def invoke(self) -> None:
        with torch.no_grad():
            self.outputs = self.network(torch.from_numpy(self.values)).numpy()

    def get_tensor(self, index: int) -> Any:
        assert index == 3
        return self.outputs


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A network with rounded activations, and a LiteRT that writes a file for it."""
    module = types.ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = FakeInterpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    for name in ("available", "lowers"):
        monkeypatch.setattr(Litert, name, lambda self: True)

    def lower(self: Litert, network: Any, example: Any, folder: Any) -> Any:
        (folder / "net.tflite").write_bytes(b"TFL3")
        return folder / "net.tflite"

    monkeypatch.setattr(Litert, "lower", lower)
    net, task = BY_NAME["mlp"].make(), BY_NAME["mlp"].task()
    small, _ = cortado.compress(net, task, "quantize/weights bits=8 | quantize/activations")
    monkeypatch.setattr(FakeInterpreter, "network", small)
    return small, task


def test_export_says_types_scales_and_float_layers(rounded: tuple[Any, Any], tmp_path: Any) -> None:
    row = cortado.export(*rounded, "litert", tmp_path / "out", tolerance=1.0)
    assert row.edges == (Edge("args_0", "input", "int8", SCALE, ZERO), Edge("output_0", "output", "float32"))
    assert row.float_operators == (FLOAT_LAYER,) and row.integer_share is None
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["float_operators"] == [FLOAT_LAYER]
    assert {one["kernel"] for one in facts["placements"]} == {"not reported"}
    assert facts["edges"][0] == {"name": "args_0", "side": "input", "dtype": "int8", "scale": SCALE, "zero": ZERO}
    assert facts["edges"][1]["dtype"] == "float32" and facts["edges"][1]["scale"] is None
    shown = exported_text(row, "accuracy", "%")
    assert f"in floats: {FLOAT_LAYER}" in shown and "does not report its share of integers" in shown
    assert "input args_0: int8, scale 0.05, zero point -14; output output_0: float32" in shown
    assert export_row(json.loads(json.dumps(asdict(row)))) == row


def test_a_network_in_floats_has_no_edges_to_speak_of(
    rounded: tuple[Any, Any], monkeypatch: Any, tmp_path: Any
) -> None:
    net = BY_NAME["mlp"].make()
    monkeypatch.setattr(FakeInterpreter, "network", net)
    row = cortado.export(net, rounded[1], "litert", tmp_path / "out", tolerance=1.0)
    assert row.edges == row.float_operators == ()


def test_bench_says_the_types_of_a_file(rounded: tuple[Any, Any], tmp_path: Any) -> None:
    (tmp_path / "net.tflite").write_bytes(b"TFL3")
    shown = bench_file(tmp_path / "net.tflite", seconds=0.05).text()
    assert "the file has input args_0: int8, scale 0.05, zero point -14; output output_0: float32" in shown


def test_a_real_file_is_channels_last_with_integer_edges(tmp_path: Any) -> None:
    pytest.importorskip("litert_torch")
    small, task = picture_task(rounded=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = cortado.export(small, task, "litert", tmp_path / "out", layout="nhwc", edges="int8")
    assert [edge.dtype for edge in row.edges] == ["int8", "int8"] and row.float_operators == ()
    session = Litert().load(tmp_path / "out/net.tflite", 1)
    assert session.inputs[0].shape == (1, 6, 10, 3) and row.difference < 0.05
