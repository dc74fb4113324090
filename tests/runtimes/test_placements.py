"""The share of a network that runs in integers is what the runtime's own graph says."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.lowering.lower import lowered
from cortado.report.record import FLOATS, INT8
from cortado.runtimes.openvino import EXACT, Openvino, fact_text, openvino_package
from cortado.runtimes.placements import kernel_share, placements
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Metric, Task

SEVEN_BITS = "quantize/weights bits=7 | quantize/activations"
"""Products of 8 bits run over on processors without VNNI."""


def own_kinds(file: Path) -> list[str]:
    """What OpenVINO says it runs each product with, in the order in which they run."""
    graph = openvino_package().compile_model(str(file), "CPU", EXACT).get_runtime_model()
    facts = [{key: fact_text(value) for key, value in step.get_rt_info().items()} for step in graph.get_ordered_ops()]
    return [one["primitiveType"] for one in facts if one["layerType"] in ("Convolution", "FullyConnected", "MatMul")]


def linears() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))


def convolutions() -> nn.Module:
    """Layers of one width, which could share their zero points, with norms that fold."""
    blocks = [(nn.Conv2d(n, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()) for n in (3, 16, 16, 16, 16)]
    return nn.Sequential(*(layer for block in blocks for layer in block), nn.Flatten(), nn.Linear(16 * 36, 8))


@pytest.mark.parametrize(
    ("make", "shape"),
    [(linears, (16,)), (linears, (9, 16)), (convolutions, (3, 6, 6))],
    ids=["linear layers", "linear layers on sequences", "convolutions with norms"],
)
def test_all_products_run_in_integers_and_are_counted_so(make, shape, tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(48, *shape)
    data = Data(inputs, torch.arange(48) % 8)
    score = Metric("size", "", lambda out, _: -out.flatten(1).square().mean(1), True, 1.0)
    task = Task(data, data, data, trial=True, device="cpu", metric=score, outputs=Numbers())
    small, _ = compress(make().eval(), task, SEVEN_BITS)
    file = Openvino().lower(lowered(small, task.example), task.example, tmp_path)
    kinds = own_kinds(file)
    matmul_layers = [path for path, layer in small.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    assert len(kinds) == len(matmul_layers) and all(kind.endswith("I8") for kind in kinds)
    found = placements(Openvino(), file, small, task.example)
    assert {row.kernel for row in found} == {INT8} and kernel_share(found, INT8) == pytest.approx(1.0)
    assert [row.layer for row in found] == matmul_layers and not any(row.why for row in found)


def test_layers_left_in_floats_are_named_with_their_share(tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(48, 16)
    data = Data(inputs, torch.arange(48) % 8)
    task = Task(data, data, data, trial=True, device="cpu")
    small, _ = compress(linears().eval(), task, f"{SEVEN_BITS} where=0.weight")
    file = Openvino().lower(lowered(small, task.example), task.example, tmp_path)
    assert [kind.endswith("I8") for kind in own_kinds(file)] == [True, True, False]
    found = placements(Openvino(), file, small, task.example)
    assert [row.layer for row in found if row.kernel == FLOATS] == ["4"]
    assert kernel_share(found, INT8) == pytest.approx((16 * 32 + 32 * 32) / (16 * 32 + 32 * 32 + 32 * 8))
