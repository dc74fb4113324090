"""binary_networks: networks of binary units as OpenVINO files, against the float network of the same shape, and its integers.

Weights are fresh and norms have seen noise: time does not depend on them. The float network has ReLU units, as one would
train without signs. All files take turns on one thread, one picture; times are those of the processor. What a file gives is
compared with the finalized network in PyTorch on a thousand random pictures.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.processor import faster_row, processor_times
from bench.result import row
from cortado.engine.compress import compress
from cortado.nets.bi_real_resnet import BiRealResNet, BiRealUnit
from cortado.network.finalize import finalized_copy
from cortado.runtimes.export import export
from cortado.runtimes.measured import bound
from cortado.runtimes.openvino import Openvino
from cortado.task.data import Data
from cortado.task.task import Task

PICTURES, CALIBRATED = 1000, 64
STAGES, UNITS_A_STAGE, WIDTH = 4, 4, 64


class BiReal18(nn.Module):
    """ResNet-18 of Bi-Real units, for pictures of 32 or of 224."""

    def __init__(self, large: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False) if large else nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(WIDTH)
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        units, channels = [], WIDTH
        for stage in range(STAGES):
            for number in range(UNITS_A_STAGE):
                units.append(BiRealUnit(channels, WIDTH << stage, 2 if stage and not number else 1))
                channels = WIDTH << stage
        self.units, self.linear = nn.Sequential(*units), nn.Linear(channels, 1000 if large else 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.linear(self.units(self.pool(self.norm1(self.conv1(pictures)))).mean((2, 3)))


class FloatUnit(nn.Module):
    """The unit of a float network: relu(norm(conv(x)) + x)."""

    def __init__(self, unit: BiRealUnit) -> None:
        super().__init__()
        self.conv, self.norm, self.stride, self.copies = unit.conv, unit.norm, unit.stride, unit.copies

    def forward(self, activation: Tensor) -> Tensor:
        branch = self.norm(self.conv(activation))
        if self.stride > 1:
            activation = functional.avg_pool2d(activation, self.stride)
        if self.copies > 1:
            activation = torch.cat([activation] * self.copies, 1)
        return functional.relu(branch + activation)


SIGNS = "quantize/xnor smooth=true"
EDGES = f"{SIGNS} | quantize/activations where='conv1, linear'"
"""The inputs of the first and last layer in 8 bits, which round otherwise where a value stands between two steps."""
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, str, float, float]] = {
    "Bi-Real ResNet-20, 32 x 32": (lambda: BiRealResNet(6), 32, SIGNS, 3.0, 1.25),
    "Bi-Real ResNet-18, 32 x 32": (lambda: BiReal18(large=False), 32, SIGNS, 12.0, 4.0),
    "Bi-Real ResNet-18, 224 x 224, 8-bit edges": (lambda: BiReal18(large=True), 224, EDGES, 8.0, 2.3),
}
"""Maker, side of a picture, recipe, and the bars over float32 and over int8."""


def run() -> list[dict[str, Any]]:
    """Each network: its file against two rivals, and its agreement with PyTorch."""
    torch.set_num_threads(1)
    return [one for name in NETWORKS for one in rows_of(name)]


def rows_of(name: str) -> list[dict[str, Any]]:
    make, side, recipe, over_floats, over_integers = NETWORKS[name]
    pictures = torch.randn(CALIBRATED if side < 100 else 8, 3, side, side, generator=torch.Generator().manual_seed(1))
    data = Data(pictures, torch.zeros(len(pictures), dtype=torch.int64))
    task = Task(data, data, data, trial=True, device="cpu")
    floats, binary = float_network(make, pictures), compress(settled(fresh(make), pictures), task, recipe)[0]
    integers, _ = compress(floats, task, "quantize/weights bits=8 | quantize/activations")
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            kind: export(one, task, Openvino(), Path(folder) / kind, tolerance=10.0)
            for kind, one in (("binary", binary), ("floats", floats), ("int8", integers))
        }
        files = {kind: Path(folder) / kind / "net.xml" for kind in rows}
        taken = processor_times(
            {kind: bound(Openvino().load(file, 1), (pictures[:1],)) for kind, file in files.items()}
        )
        same, far = agreement(binary, files["binary"], side) if recipe == SIGNS else (None, None)
        sizes = {kind: one.size_bytes for kind, one in rows.items()}
    placed = [one for one in rows["binary"].placements if one.kernel == "binary"]
    return [
        faster_row(
            f"{name}: binary over float32", taken, "binary", "floats", over_floats, version=Openvino().version()
        ),
        faster_row(f"{name}: binary over int8", taken, "binary", "int8", over_integers, version=Openvino().version()),
        row(f"{name}: layers of signs", len(placed), "layers", better="higher", share=sum(one.share for one in placed)),
        row(f"{name}: times smaller than the file in float32", sizes["floats"] / sizes["binary"], "x", better="higher"),
        *(
            []
            if same is None
            else [row(f"{name}: same class as PyTorch, {PICTURES:,} pictures", same, "%", 100.0, "higher")]
        ),
        *([] if far is None else [row(f"{name}: worst difference, as a share of the largest output", far, "", 1e-4)]),
    ]


def agreement(network: nn.Module, file: Path, side: int) -> tuple[float, float]:
    """Return the share of random pictures with PyTorch's class, in %, and the worst difference of outputs."""
    session, wanted = Openvino().load(file, 1), finalized_copy(network)
    same, worst, largest = 0, 0.0, 0.0
    generator = torch.Generator().manual_seed(2)
    for _ in range(PICTURES // 10):
        pictures = torch.randn(10, 3, side, side, generator=generator)
        with torch.no_grad():
            one, other = session(pictures)[0], wanted(pictures)
        same += int((one.argmax(1) == other.argmax(1)).sum())
        worst, largest = max(worst, float((one - other).abs().max())), max(largest, float(other.abs().max()))
    return 100 * same / PICTURES, worst / largest


def float_network(make: Callable[[], nn.Module], pictures: Tensor) -> nn.Module:
    """Return the same network with float units."""
    network: Any = fresh(make)
    for number, unit in enumerate(network.units):
        network.units[number] = FloatUnit(unit)
    return settled(network, pictures)


def fresh(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a network with the fresh weights of seed 0."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return make()


def settled(network: nn.Module, pictures: Tensor) -> nn.Module:
    """Return the network in eval mode; its norms have random gains and the statistics of these pictures."""
    generator = torch.Generator().manual_seed(3)
    for norm in [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]:
        norm.momentum = 0.3
        norm.weight.data = 0.5 + torch.rand(len(norm.weight), generator=generator)
        norm.bias.data = 0.2 * torch.randn(len(norm.bias), generator=generator)
    network.train()
    with torch.no_grad():
        for _ in range(4):
            network(pictures[:8])
    return network.eval()
