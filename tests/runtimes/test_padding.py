"""Pads before convolutions become the convolution's own, in floats and in integers, and change no output."""

import onnx
import pytest
import torch
from torch import nn

import cortado
from cortado.runtimes.export import export
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Metric, Task

BITS = "quantize/weights bits=7 | quantize/activations"


def task() -> Task:
    data = Data(torch.randn(48, 4, 9, 8, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 2)
    score = Metric("size", "", lambda out, _: -out.flatten(1).square().mean(1), True, 1.0)
    return Task(data, data, data, trial=True, device="cpu", metric=score, outputs=Numbers())


def network(pad: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), pad, nn.Conv2d(16, 8, 3, stride=2, padding=1), nn.Flatten(1)
    ).eval()


def steps_of(made: nn.Module, runtime: str, folder, tolerance: float = 1e-4) -> list[str]:
    """The operators of an .onnx file; a value between two steps of a grid may be rounded either way."""
    row = export(made, task(), runtime, folder, tolerance=tolerance)
    assert row.difference < tolerance
    return [] if runtime == "openvino" else [step.op_type for step in onnx.load(folder / "net.onnx").graph.node]


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_zeros_are_folded_and_outputs_stay(integers, runtime, tmp_path):
    made = network(nn.ZeroPad2d((0, 1, 2, 1)))
    made = cortado.compress(made, task(), BITS)[0] if integers else made
    steps = steps_of(made, runtime, tmp_path / "out", 0.02 if integers else 1e-4)
    # Between the first ReLU and the second convolution one quantizer is left.
    assert "Pad" not in steps and steps.count("QuantizeLinear") == (4 if integers and steps else 0)


@pytest.mark.parametrize("pad", [nn.ConstantPad2d(1, 0.5), nn.ReflectionPad2d(1), nn.ZeroPad2d((-1, 1, 0, 0))], ids=str)
def test_other_pads_stay(pad, tmp_path):
    assert "Pad" in steps_of(network(pad), "onnxruntime", tmp_path / "out")
