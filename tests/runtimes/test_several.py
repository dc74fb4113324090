"""Networks with named inputs and several outputs: exported, compared and timed like any other."""

import pytest
import torch
from torch import Tensor, nn

from cortado.engine.compress import compress
from cortado.report.report import Exported
from cortado.runtimes.export import export
from cortado.runtimes.measured import measure
from cortado.runtimes.runtime import Running, installed
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.boxes import Boxes
from cortado.task.outputs.classes import Classes
from cortado.task.task import Task


class TwoHeads(nn.Module):
    """Classes and boxes from a picture and a number, in a tuple or a dict."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.named = named
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classes, self.boxes = nn.Linear(32, 3), nn.Linear(32, 4)

    def forward(self, picture: Tensor, shift: Tensor):
        activation = self.body(picture) + shift[:, None]
        classes, boxes = self.classes(activation), self.boxes(activation)
        return {"logits": classes, "boxes": boxes} if self.named else (classes, boxes)


def network(named: bool) -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        return TwoHeads(named).eval()


def right(outputs, targets) -> Tensor:
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    return (logits.argmax(1) == targets["label"]).float()


def loss(outputs, targets) -> Tensor:
    logits, boxes = outputs.values() if isinstance(outputs, dict) else outputs
    return nn.functional.cross_entropy(logits, targets["label"]) + nn.functional.mse_loss(boxes, targets["box"])


def data(seed: int, count: int, named: bool) -> Data:
    generator = torch.Generator().manual_seed(seed)
    pictures, shifts = torch.randn(count, 1, 6, 6, generator=generator), torch.randn(count, generator=generator)
    targets = {"label": (pictures.mean((1, 2, 3)) > 0).long(), "box": pictures[:, 0, 0, :4]}
    # The order of a dict is not that of the arguments.
    return Data({"shift": shifts, "picture": pictures} if named else (pictures, shifts), targets)


def task(named: bool) -> Task:
    parts = {name: data(seed, 40, named) for seed, name in enumerate(("train", "validation", "test"))}
    kinds = {"logits": Classes(), "boxes": Boxes()} if named else (Classes(), Boxes())
    return Task(**parts, loss=loss, metric=Metric(each=right), outputs=kinds, batch=20, device="cpu")


def of_runtime(row: Exported) -> tuple[float | None, float | None]:
    return row.score, row.torch_score


@pytest.mark.parametrize("named", [True, False], ids=["named", "in order"])
@pytest.mark.parametrize("runtime", ["torch_eager", "onnxruntime", "openvino"])
def test_every_output_of_a_file_is_that_of_the_network(named, runtime, tmp_path):
    net, made = network(named), task(named)
    row = export(net, made, runtime, tmp_path / "out")
    assert row.difference < 1e-5 and row.same_top == 1 and row.score == row.torch_score
    (target,) = installed([runtime])
    running = Running(target.load(next((tmp_path / "out").glob(f"*{target.suffix}")), 1))
    inputs, _ = next(made.test.batches(7))
    found = running(**inputs) if named else running(*inputs)
    wanted = net(**inputs) if named else net(*inputs)
    wanted = tuple(wanted.values()) if named else wanted
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("named", [True, False], ids=["named", "in order"])
def test_integers_of_several_outputs_agree_and_name_them(named, tmp_path):
    import onnxruntime

    made = task(named)
    small, _ = compress(network(named), made, "quantize/weights bits=7 | quantize/activations")
    row = export(small, made, "onnxruntime", tmp_path / "out")
    assert row.difference < 0.1 and row.integer_share and row.score is not None
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "net.onnx"), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    assert len(names) == 2 and (not named or names == ["logits", "boxes"])


def test_named_inputs_are_timed_beside_the_original():
    net, made = network(True), task(True)
    rows, clocks = measure(net, net, made, installed(["onnxruntime"]), batches=(1, 3), seconds=0.05)
    assert [row.same_top for row in rows] == [1.0] and [clock.batch for clock in clocks] == [1, 3]
