"""Layers of integers are written as ONNX Runtime computes them fastest, and their outputs stay."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.lowering.lower import lowered
from cortado.report.record import INT8
from cortado.runtimes.kernels.integers import Integers
from cortado.runtimes.kernels.onnx_integers import OnnxIntegers
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.placements import placements
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Metric, Task

SEVEN_BITS = "quantize/weights bits=7 | quantize/activations"


class Twice(nn.Module):
    """A convolution of five channels that runs twice, and a layer with a bias at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.same = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 20, 3, padding=1)
        self.back, self.last = nn.Conv2d(20, 5, 1), nn.Linear(20, 7)

    def forward(self, images):
        activation = torch.relu(self.same(torch.relu(self.first(images))))
        activation = torch.relu(self.same(torch.relu(self.back(activation))))
        return self.last(activation.mean((2, 3)))


def stem(channels: int, rows: int, **facts: int) -> nn.Module:
    """A convolution of so many channels and rows, and a linear layer with a bias."""
    return nn.Sequential(
        nn.Conv2d(channels, rows, 3, padding=1, **facts),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(rows, 7),
    )


def made(network: nn.Module, shape: tuple[int, ...], folder, monkeypatch) -> tuple[list[str], bool]:
    """The operators of a network's file; outputs with and without our rewrites are the same."""
    torch.manual_seed(0)
    inputs = torch.randn(48, *shape)
    data = Data(inputs, torch.arange(48) % 7)
    score = Metric("size", "", lambda out, _: -out.flatten(1).square().mean(1), True, 1.0)
    task = Task(data, data, data, trial=True, device="cpu", metric=score, outputs=Numbers())
    small, _ = compress(network.eval(), task, SEVEN_BITS)
    low, files = lowered(small, task.example), []
    for name, emit in (("new", OnnxIntegers.emit), ("plain", Integers.emit)):
        monkeypatch.setattr(OnnxIntegers, "emit", emit)
        (folder / name).mkdir()
        files.append(Onnxruntime().lower(low, task.example, folder / name))
    found, wanted = (Onnxruntime().load(file, 1)(inputs)[0].numpy() for file in files)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    rows = placements(Onnxruntime(), files[0], small, task.example, low)
    return [step.op_type for step in onnx.load(files[0]).graph.node], all(row.kernel == INT8 for row in rows)


def test_a_last_layer_with_a_bias_runs_in_integers(tmp_path, monkeypatch):
    steps, integers = made(stem(4, 16), (4, 6, 6), tmp_path, monkeypatch)
    assert integers and "Add" in steps and "Pad" not in steps


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_channels_are_filled_up_to_fours(channels, tmp_path, monkeypatch):
    steps, integers = made(stem(channels, 16), (channels, 6, 6), tmp_path, monkeypatch)
    assert integers and steps.count("Pad") == 1


@pytest.mark.parametrize(
    "network", [stem(3, 8), stem(6, 18, groups=3), stem(8, 16)], ids=["few rows", "groups", "fours already"]
)
def test_channels_stay_where_filling_them_would_not_help(network, tmp_path, monkeypatch):
    steps, _ = made(network, (network[0].in_channels, 6, 6), tmp_path, monkeypatch)
    assert "Pad" not in steps


def test_a_layer_that_runs_twice_is_filled_twice(tmp_path, monkeypatch):
    steps, integers = made(Twice(), (3, 6, 6), tmp_path, monkeypatch)
    assert integers and steps.count("Pad") == 2
