"""packed_speed: linear layers whose weights stay packed in the runtime's file, against the same layers in floats.

Four products of 1,024 by 1,024 with random weights, one sample: time and bytes do not depend on what the weights are.
Floats, packed and floats again take turns, round by round.
"""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.result import row
from cortado.lowering.lower import lowered
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.runtimes.measured import bound
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.openvino import Openvino
from cortado.runtimes.runtime import Runtime
from cortado.runtimes.timing import interleaved, is_noisy, speed_ratio
from cortado.task.task import Data, Task

WIDTH, LAYERS, SECONDS = 1024, 4, 10.0
RUNTIMES: dict[str, Runtime] = {
    "ONNX Runtime": Onnxruntime(),
    "ONNX Runtime, inputs rounded": Onnxruntime(rounds_inputs=True),
    "OpenVINO": Openvino(),
}


def run() -> list[dict[str, Any]]:
    """4 and 2 bits in each runtime."""
    return [one for bits in (4, 2) for name in RUNTIMES for one in rows_of(name, bits)]


def rows_of(name: str, bits: int) -> list[dict[str, Any]]:
    original, inputs = wide_layers(), torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    task = Task(*[Data(inputs, torch.zeros(1, dtype=torch.int64))] * 3, trial=True)
    small = copy.deepcopy(original)
    QuantizeWeights(bits=bits).apply(View(small, original, task.example), task)
    with tempfile.TemporaryDirectory() as folder:
        floats, packed = (
            file_of(RUNTIMES[name], net, inputs, Path(folder), which) for which, net in enumerate((original, small))
        )
        calls = [
            bound(RUNTIMES[name].load(file, torch.get_num_threads()), (inputs,)) for file in (floats, packed, floats)
        ]
        taken = interleaved(calls, SECONDS)
        smaller = size(floats) / size(packed)
    faster = speed_ratio(taken[:, 0], taken[:, 1])
    what = f"{name}, weights of {bits} bits"
    return [
        row(f"{what}: times smaller file", smaller, "x", better="higher"),
        row(
            f"{what}: times faster than floats (quartiles {faster.low:.2f} to {faster.high:.2f})",
            faster.median, "x", better="higher", rounds=len(taken), noisy=is_noisy(speed_ratio(taken[:, 0], taken[:, 2])),
            version=RUNTIMES[name].version(),
        ),
    ]  # fmt: skip


def wide_layers() -> nn.Module:
    """The layers, with the fresh weights of seed 0."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(LAYERS)]
        return nn.Sequential(*layers).eval()


def file_of(runtime: Runtime, network: nn.Module, inputs: Tensor, folder: Path, which: int) -> Path:
    """The runtime's file of a network."""
    own = folder / str(which)
    own.mkdir()
    return runtime.lower(lowered(network, inputs), inputs, own)


def size(file: Path) -> int:
    """Bytes of a runtime's file with what it keeps beside it."""
    return sum(one.stat().st_size for one in file.parent.iterdir())
