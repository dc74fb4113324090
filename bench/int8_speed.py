"""int8_speed: networks in integers against themselves in floats and against the files of the runtimes' own quantizers.

Weights are random: time does not depend on them. Four files take turns, round by round: floats, Cortado's integers, the
quantizer's integers, floats again. Times are those of the processor, on one thread, so that a busy machine changes them little.
The runtimes' own profiles say what each kind of operator takes and gains. Weights have 7 bits where the processor's integer
products would run over (no VNNI).
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.after import after
from bench.processor import processor_times
from bench.result import row
from bench.rivals import static_int8
from bench.time_by_kind import kind_rows
from cortado.lowering.lower import lowered
from cortado.machine import instruction_sets, processor_saturates
from cortado.nets.mobilenet import mobilenet
from cortado.nets.mobilenet_v2 import mobilenet_v2
from cortado.nets.resnet import CifarResNet
from cortado.report.record import INT8, UNREPORTED
from cortado.runtimes.measured import bound
from cortado.runtimes.placements import kernel_share, placements
from cortado.runtimes.runtime import Runtime, runtime_by_name
from cortado.runtimes.timing import SPREAD, is_noisy, speed_ratio
from cortado.task.task import Data, Task

IMAGES, ROUNDS = 32, 100
BITS = 7 if processor_saturates() else 8
NEAR = 0.95
"""Cortado's file may take 5 % longer than that of the runtime's quantizer."""
Made = tuple[Callable[[], nn.Module], int, tuple[int, ...], float]
NETWORKS: dict[str, Made] = {
    "ResNet-20, four times as wide": (lambda: CifarResNet(3, width=64), 32, (1, 32), 3.3),
    "MobileNetV1": (mobilenet, 224, (1,), 2.3),
    "MobileNetV2": (mobilenet_v2, 224, (1,), 2.3),
}
"""How to make it, pixels a side, batch sizes, and how many times faster than floats it should be."""
QUANTIZERS = {
    "onnxruntime": ("its own quantizer", static_int8.onnx_runtime, f"MinMax, {BITS} bits", ".onnx"),
    "openvino": ("NNCF", static_int8.nncf, "PERFORMANCE", ".xml"),
}


def run() -> list[dict[str, Any]]:
    """All networks in both runtimes."""
    torch.set_num_threads(1)
    return [one for name, made in NETWORKS.items() for one in rows_of(name, made)]


def rows_of(name: str, made: Made) -> list[dict[str, Any]]:
    make, side, batches, bar = made
    original = with_norms(make())
    data = Data(noise(IMAGES, side), torch.zeros(IMAGES, dtype=torch.int64))
    task = Task(data, data, data, trial=True)
    small = after(original, task, f"quantize/weights bits={BITS} | quantize/activations")
    rows = []
    for runtime in map(runtime_by_name, QUANTIZERS):
        with tempfile.TemporaryDirectory() as folder:
            files = files_of(original, small, task, runtime, Path(folder))
            found, what = placements(runtime, files[1], small, task.example), f"{name}, {runtime.name()}"
            rows += [] if kernel_share(found, UNREPORTED) else [share_row(what, kernel_share(found, INT8))]
            rows += kind_rows(what, runtime.name(), files[0], files[1], noise(1, side))
            for batch in batches:
                rows += ratio_rows(f"{what}, batch {batch}", runtime, files, noise(batch, side), bar)
    return rows


def share_row(what: str, share: float) -> dict[str, Any]:
    return row(f"{what}: multiply-adds in integers", 100 * share, "%", better="higher")


def with_norms(network: nn.Module) -> nn.Module:
    """The network ready to run, its batch norms as if they had seen something."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def noise(count: int, side: int) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def files_of(original: nn.Module, small: nn.Module, task: Task, runtime: Runtime, folder: Path) -> list[Path]:
    """The network in floats, in integers by Cortado, in integers by the runtime's quantizer."""
    own = {name: folder / name for name in ("floats", "integers", "source", "quantizer")}
    for part in own.values():
        part.mkdir()
    floats = runtime.lower(lowered(original, task.example), task.example, own["floats"])
    integers = runtime.lower(lowered(small, task.example), task.example, own["integers"])
    source = runtime_by_name("onnxruntime").lower(lowered(original, task.example), task.example, own["source"])
    _, make, way, suffix = QUANTIZERS[runtime.name()]
    batches = [inputs for inputs, _ in task.train.batches(16)]
    return [floats, integers, make(source, own["quantizer"] / f"net{suffix}", batches, way)]


def ratio_rows(what: str, runtime: Runtime, files: list[Path], inputs: Tensor, bar: float) -> list[dict[str, Any]]:
    """Times faster than floats, against the quantizer, and floats against themselves."""
    calls = {str(place): bound(runtime.load(file, 1), (inputs,)) for place, file in enumerate((*files, files[0]))}
    taken = np.stack(list(processor_times(calls, ROUNDS if len(inputs) == 1 else ROUNDS // 4).values()), 1)
    tool, *_ = QUANTIZERS[runtime.name()]
    pairs: list[tuple[str, int, int, float | None]] = [
        (f"integers of {BITS}-bit weights, times faster than floats{note()}", 0, 1, bar),
        (f"{tool}'s file, times faster than floats", 0, 2, None),
        (f"integers, times faster than {tool}'s file", 2, 1, NEAR),
        ("floats against themselves (A/A)", 0, 3, None),
    ]
    noisy = is_noisy(speed_ratio(taken[:, 0], taken[:, 3]))
    rows = []
    for label, slow, fast, least in pairs:
        found = speed_ratio(taken[:, slow], taken[:, fast])
        label = f"{what}: {label} (quartiles {found.low:.2f} to {found.high:.2f})"
        wide = noisy or found.high - found.low > SPREAD * found.median
        facts = {"low": found.low, "high": found.high, "rounds": len(taken), "noisy": wide}
        rows.append(row(label, found.median, "x", least, "higher", **facts))
    middle = [float(value) for value in torch.from_numpy(taken).median(0).values]
    rows[0].update(
        floats_ms=middle[0], integers_ms=middle[1], quantizer_ms=middle[2],
        instruction_sets=list(instruction_sets()), version=runtime.version(), weight_bits=BITS,
    )  # fmt: skip
    return rows


def note() -> str:
    """What a reader has to know of this processor."""
    return "; no VNNI here" if processor_saturates() else ""
