"""placements: with which kernel files compute each layer, and why not with a faster one; for networks of the zoo.

Weights are fresh, or norms have seen noise: a table does not depend on them. Each network is rounded, pruned or shared in
several ways, nothing is trained, and written for both runtimes. A layer counts as told of if its kernel is known and, where
it has floats although its weight is none, the table says why. What the table says is held against the profile of a run.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.after import after
from bench.char_lstm import CharLSTM
from bench.int8_speed import with_norms
from bench.minilm import MiniLM
from bench.reported import agreeing
from bench.result import row
from cortado.lowering.lower import lowered
from cortado.machine import processor_saturates
from cortado.nets.espnet import espnet
from cortado.nets.lenet import lenet_5
from cortado.nets.mobilenet import mobilenet
from cortado.nets.mobilenet_v2 import mobilenet_v2
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.nets.resnet_8 import resnet_8
from cortado.nets.tiny_darknet import tiny_darknet
from cortado.network.finalize import finalized_copy
from cortado.parts.forms.attach import form_of
from cortado.report.record import FLOATS, INT8, UNREPORTED, Placement
from cortado.runtimes.placements import kernel_share, placements
from cortado.runtimes.runtime import Runtime, runtime_by_name
from cortado.task.metric import Metric
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Task

SAMPLES, BITS = 4, 7 if processor_saturates() else 8
RUNTIMES = ("onnxruntime", "openvino")
INTEGERS = f"8-bit weights and activations ({BITS} bits here)" if BITS < 8 else "8-bit weights and activations"
INT8_ALONE = {INTEGERS: f"quantize/weights bits={BITS} | quantize/activations"}
"""What is done to deep networks, whose files take long to write."""
WAYS = {
    "floats": "",
    **INT8_ALONE,
    "signs of weights": "quantize/xnor activations=false",
    "4-bit weights": "quantize/weights bits=4",
    "90 % zeros": "prune/weights keep=0.1",
    "16 shared values": "share/kmeans bits=4",
}
FEW = {**INT8_ALONE, "90 % zeros": WAYS["90 % zeros"]}
SIGNS = {**WAYS, "signs of weights and inputs": "quantize/xnor"}
Made = tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, str]]
NETWORKS: dict[str, Made] = {
    "LeNet-5": (lenet_5, (1, 28, 28), SIGNS),
    "ResNet-8": (resnet_8, (3, 32, 32), WAYS),
    "ResNet-20": (resnet_20, (3, 32, 32), FEW),
    "ResNet-56": (resnet_56, (3, 32, 32), INT8_ALONE),
    "MobileNetV1": (mobilenet, (3, 64, 64), INT8_ALONE),
    "MobileNetV2": (mobilenet_v2, (3, 64, 64), INT8_ALONE),
    "Tiny Darknet": (tiny_darknet, (3, 64, 64), FEW),
    "ESPNet": (espnet, (3, 64, 64), INT8_ALONE),
    "MiniLM": (MiniLM, (16,), INT8_ALONE),
    "char-LSTM": (CharLSTM, (16,), SIGNS),
}
"""How to make it, the shape of a sample (token numbers where it has one axis), and what is done to it."""
NOTHING = Metric("size", "", lambda outputs, _: -outputs.flatten(1).square().mean(1), True, 1.0)


@dataclass
class Counted:
    """Layers of the files of one runtime: all, told of, and those of which the runtime says the same."""

    layers: int = 0
    told: int = 0
    agreeing: int = 0
    files: int = 0
    missed: list[str] = field(default_factory=list)


def run() -> list[dict[str, Any]]:
    """Share of layers with a kernel or a reason, of those that the runtime confirms, and of integers in each network."""
    torch.set_num_threads(1)
    counted, shares = {name: Counted() for name in RUNTIMES}, list[dict[str, Any]]()
    for name, (make, shape, ways) in NETWORKS.items():
        torch.manual_seed(0)
        original, task = with_norms(make()), task_of(shape)
        for way, recipe in ways.items():
            small = after(original, task, recipe) if recipe else original
            low = lowered(small, task.example)
            for runtime in map(runtime_by_name, RUNTIMES):
                rows = rows_in(runtime, small, low, task, counted[runtime.name()], f"{name}, {way}")
                shares += [share_row(name, runtime, rows)] if way == INTEGERS else []
    return [*(one for name in RUNTIMES for one in bars(name, counted[name])), *shares]


def task_of(shape: tuple[int, ...]) -> Task:
    """Noise, or numbers of tokens, in batches of SAMPLES."""
    seeded = torch.Generator().manual_seed(1)
    noise = torch.randn(SAMPLES, *shape, generator=seeded)
    inputs = noise if len(shape) > 1 else torch.randint(1, 60, (SAMPLES, *shape), generator=seeded)
    data = Data(inputs, torch.zeros(SAMPLES, dtype=torch.int64))
    return Task(data, data, data, trial=True, device="cpu", metric=NOTHING, outputs=Numbers())


def rows_in(
    runtime: Runtime, small: nn.Module, low: nn.Module, task: Task, counted: Counted, what: str
) -> tuple[Placement, ...]:
    """Return the table of one file, and count its layers."""
    inputs: Tensor = task.train.inputs[:1]
    with tempfile.TemporaryDirectory() as folder:
        file = runtime.lower(low, task.example, Path(folder))
        rows = placements(runtime, file, small, task.example, low)
        same = agreeing(runtime.name(), file, inputs, rows)
    layers = dict(finalized_copy(small).named_modules())
    silent = [one.layer for one in rows if not is_told(one, layers[one.layer])]
    counted.files += 1
    counted.layers += len(rows)
    counted.told += len(rows) - len(silent)
    counted.agreeing += same
    if silent or same < len(rows):
        counted.missed.append(f"{what}: {len(silent)} untold, {len(rows) - same} of {len(rows)} ran otherwise")
    return rows


def is_told(placement: Placement, layer: nn.Module) -> bool:
    """Return whether a layer has a kernel, and a reason if that is floats although its weight is none."""
    plain = form_of(layer, "weight") is None
    return placement.kernel != UNREPORTED and (placement.kernel != FLOATS or plain or bool(placement.why))


def bars(runtime: str, counted: Counted) -> list[dict[str, Any]]:
    """Return the two shares of a runtime's layers."""
    of = f"{counted.layers} layers in {counted.files} files for {runtime}"
    return [
        row(
            f"{of}: share with a kernel, and a reason where it is not the fastest",
            counted.told / counted.layers, "", 1.0, "higher", missed=counted.missed,
        ),
        row(f"{of}: share whose kernel the runtime's profile confirms", counted.agreeing / counted.layers, "", 1.0, "higher"),
    ]  # fmt: skip


def share_row(name: str, runtime: Runtime, rows: tuple[Placement, ...]) -> dict[str, Any]:
    """Return the share of a network's multiply-adds in integers."""
    share, floats = kernel_share(rows, INT8), [one.layer for one in rows if one.kernel == FLOATS]
    what = f"{name}, {INTEGERS}, {runtime.name()} {runtime.version()}: multiply-adds in integers"
    return row(what, 100 * share, "%", better="higher", layers_in_floats=floats)
