"""Files with pictures channels last, and with 8-bit edges: in a runtime that stands for one that has them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cortado
from cortado.errors import BadNetwork, BadValue
from cortado.lowering.lower import lowered
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.network.view import View
from cortado.parts.activations.quantizer import OUTPUT, drop_quantizer, sites
from cortado.report.record import Edge
from cortado.runtimes.edges import (
    ChannelsFirstSession,
    ChannelsLast,
    ranges_of_ends,
    restored,
    rounded_ends,
    with_edges,
)
from cortado.runtimes.runtime import runtime_by_name
from cortado.runtimes.torch_eager import TorchEager
from cortado.task.task import Data, Metric, Task


class Turning(TorchEager):
    """Writes files with pictures (N, H, W, C) on request, and says what they take and give."""

    edge_options = ("layout", "edges")
    dtype = "int8"

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        if self.layout:
            return super().lower(ChannelsLast(network), restored(example), folder)
        return super().lower(network, example, folder)

    def edges(self, file: Path) -> tuple[Edge, ...]:
        return Edge("images", "input", "int8", 0.1, 3), Edge("logits", "output", self.dtype)


def pixels(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The share of a picture's pixels that are right."""
    return (outputs.argmax(1) == targets).float().mean((1, 2))


def picture_task(rounded: bool = False) -> tuple[nn.Module, Task]:
    """A network that returns maps (N, 4, H, W), and pictures whose sides differ."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).eval()
    images, targets = torch.randn(24, 3, 6, 10), torch.randint(0, 4, (24, 6, 10))
    # What is validated stays inside the range of what is calibrated on.
    images[8:] *= 0.5
    task = Task(*[Data(images[a : a + 8], targets[a : a + 8]) for a in (0, 8, 16)], metric=Metric(each=pixels))
    if rounded:
        QuantizeActivations().apply(View(network, network, task.example), task)
        drop_quantizer(network[2], OUTPUT)
    return network, task


def test_a_file_channels_last_takes_and_gives_them_so(tmp_path):
    network, task = picture_task()
    row = cortado.export(network, task, Turning(), tmp_path / "out", layout="nhwc")
    assert row.difference < 1e-5
    session = Turning().load(tmp_path / "out/net.pt2", 1)
    images = task.validation.inputs
    assert session.inputs[0].shape[1:] == (6, 10, 3)
    (found,) = session(images.permute(0, 2, 3, 1).contiguous())
    with torch.no_grad():
        assert torch.allclose(found.permute(0, 3, 1, 2), network(images), atol=1e-5)
    assert ChannelsFirstSession(session).inputs[0].shape[1:] == (3, 6, 10)
    assert json.loads((tmp_path / "out/export.json").read_text())["layout"] == "nhwc"


def test_the_networks_own_layout_is_the_default(tmp_path):
    network, task = picture_task()
    cortado.export(network, task, Turning(), tmp_path / "out")
    assert Turning().load(tmp_path / "out/net.pt2", 1).inputs[0].shape[1:] == (3, 6, 10)
    assert json.loads((tmp_path / "out/export.json").read_text())["layout"] == "the network's"


def test_rounded_ends_span_what_the_network_returns():
    network, task = picture_task(rounded=True)
    data = task.calibration
    with torch.no_grad():
        wanted = network(data.inputs)
    assert ranges_of_ends(network, data) == {"2": (float(wanted.min()), float(wanted.max()))}
    made = rounded_ends(network, data)
    assert set(sites(made)) - set(sites(network)) == {("2", OUTPUT)}
    step = float(sites(made)["2", OUTPUT].size.detach())
    with torch.no_grad():
        far = (made(data.inputs) - wanted).abs().max()
    assert 0 < far <= 0.51 * step and step == pytest.approx(float(wanted.max() - wanted.min()) / 255, rel=1e-5)


def test_rounded_ends_are_written_and_compared_with_the_network(tmp_path):
    network, task = picture_task(rounded=True)
    row = cortado.export(network, task, Turning(), tmp_path / "out", edges="int8")
    low = lowered(rounded_ends(network, task.calibration), task.example)
    found = runtime_by_name("torch_eager").load(tmp_path / "out/net.pt2", 1)(task.validation.inputs)[0]
    with torch.no_grad():
        assert torch.allclose(found, low(task.validation.inputs), atol=1e-5)
    assert 1e-4 < row.difference < 0.02 and row.edges[0].dtype == "int8"


def test_an_output_of_no_layer_cannot_be_rounded():
    network, task = picture_task(rounded=True)

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.end = network, nn.Identity()

        def forward(self, images):
            return 2 * self.inner(images)

    class Ended(Doubled):
        def forward(self, images):
            return self.end(2 * self.inner(images))

    with pytest.raises(BadNetwork, match="returns a value that no layer computes.*nn.Identity"):
        rounded_ends(Doubled(), task.calibration)
    assert ("end", OUTPUT) in sites(rounded_ends(Ended(), task.calibration))


def test_a_network_in_floats_has_no_integer_edges(tmp_path):
    network, task = picture_task()
    with pytest.raises(BadNetwork, match="computes in floats.*quantize/activations"):
        cortado.export(network, task, Turning(), tmp_path / "out", edges="int8")
    assert not list(tmp_path.iterdir())


def test_a_file_that_keeps_floats_at_an_edge_is_refused(tmp_path, monkeypatch):
    network, task = picture_task(rounded=True)
    monkeypatch.setattr(Turning, "dtype", "float32")
    with pytest.raises(BadNetwork, match="output logits: float32, but edges='int8' was asked for"):
        cortado.export(network, task, Turning(), tmp_path / "out", edges="int8")
    assert not list(tmp_path.iterdir())


def test_options_that_a_runtime_lacks_are_refused():
    for name in ("onnxruntime", "openvino", "torch_eager"):
        runtime = runtime_by_name(name)
        with pytest.raises(BadValue, match=f"{name}: this runtime has no layout, got layout='nhwc'.*litert"):
            with_edges(runtime, "nhwc", None)
        with pytest.raises(BadValue, match=f"{name}: this runtime has no edges"):
            with_edges(runtime, None, "int8")
        assert with_edges(runtime, None, None) is runtime
    with pytest.raises(BadValue, match="layout must be 'nhwc' or left out, got 'NCHW'"):
        with_edges(Turning(), "NCHW", None)
    with pytest.raises(BadValue, match="edges must be 'int8' or left out, got 'int4'"):
        with_edges(Turning(), None, "int4")
