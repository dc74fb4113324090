"""Layers that cannot run in integers say why."""

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.runtimes.export import export
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Metric, Task

SEVEN_BITS = "quantize/weights bits=7 | quantize/activations"


def task_of(*shape: int) -> Task:
    inputs = torch.randn(48, *shape, generator=torch.Generator().manual_seed(0))
    data = Data(inputs, torch.arange(48) % 2)
    score = Metric("size", "", lambda out, _: -out.flatten(1).square().mean(1), True, 1.0)
    return Task(data, data, data, trial=True, device="cpu", metric=score, outputs=Numbers())


class Recurrent(nn.Module):
    """An LSTM between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm, self.last = nn.Linear(8, 16), nn.LSTM(16, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, activation):
        return self.last(self.lstm(torch.relu(self.first(activation)))[0])


@pytest.mark.parametrize(
    ("make", "shape", "layer", "reason"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 4, 3)),
            (3, 6, 6),
            "2",
            "transposed",
        ),
        (Recurrent, (5, 8), "lstm", "recurrent"),
    ],
    ids=["transposed convolution", "LSTM"],
)
def test_layers_that_onnx_runtime_has_no_integers_for_say_so(make, shape, layer, reason, tmp_path):
    torch.manual_seed(0)
    task = task_of(*shape)
    small, _ = compress(make().eval(), task, SEVEN_BITS)
    row = export(small, task, "onnxruntime", tmp_path / "out", tolerance=0.2)
    found = {one.layer: one for one in row.placements}
    assert found[layer].kernel == "float32" and f"int8: ONNX Runtime has no {reason}" in found[layer].why


def test_codes_that_read_floats_say_what_is_missing(tmp_path):
    torch.manual_seed(0)
    task = task_of(3, 6, 6)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)).eval()
    small, _ = compress(network, task, "quantize/weights bits=8")
    for runtime in ("onnxruntime", "openvino"):
        rows = export(small, task, runtime, tmp_path / runtime).placements
        assert {row.why for row in rows} == {"int8: its input is not quantized"}
        assert {row.kernel for row in rows} == {"float32"}
