"""cascade_cifar: ResNet-8, 20 and 56 as one cascade on CIFAR-10, in one file of each runtime, against ResNet-56 alone.

Thresholds come from 5,000 validation pictures, which these networks saw in their training; the 1,000 test pictures are used
once for each file. Times are processor time of one thread, over the 1,000 test pictures one at a time and in batches of 32,
in turns of 25 calls; x over ResNet-56 in floats in the same runtime.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.after import after
from bench.result import row
from cortado.lowering.lower import lowered
from cortado.methods.conditional.thresholds import sures_in
from cortado.nets.resnet import resnet_56
from cortado.network.view import View, working_copy
from cortado.parts.blocks.exit import Exit
from cortado.parts.blocks.rows import NEVER
from cortado.report.report import paired_interval
from cortado.running.eval_mode import eval_mode
from cortado.runtimes.runtime import Running, Runtime, runtime_by_name
from cortado.runtimes.stream import stream_of, streamed
from cortado.task.measure import scores
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
PIXELS = {"scale": [58.395, 57.12, 57.375], "shift": [123.675, 116.28, 103.53]}
"""ResNet-8 reads pixels from 0 to 255, the others normalised ones."""
MEMBERS = [
    {"network": "resnet_8", "options": {"weights": True}, **PIXELS},
    {"network": "resnet_20", "options": {"weights": True}},
]
CASCADE: list[Any] = [{"conditional/cascade": {"members": MEMBERS}}]
INTEGERS: list[Any] = ["quantize/weights bits=8", "quantize/activations range=mse"]
THRESHOLDS: list[Any] = [{"conditional/thresholds": {"lose": 1.0, "sure": 0.9, "seen": True}}]
NETWORKS = {
    "cascade": CASCADE + THRESHOLDS,
    "int8 cascade": CASCADE + INTEGERS + THRESHOLDS,
    "int8 ResNet-56": INTEGERS,
}
RUNTIMES = ("onnxruntime", "openvino")
BATCHES = (1, 32)
LEAST_SCORE = 92.3
OVER_FLOATS = {
    ("cascade", "onnxruntime"): (2.2, 2.2), ("cascade", "openvino"): (2.1, 2.1),
    ("int8 cascade", "onnxruntime"): (5.0, 6.0), ("int8 cascade", "openvino"): (4.5, 5.5),
}  # fmt: skip
OVER_INTEGERS = {"onnxruntime": 2.0, "openvino": 1.8}
OVERHEAD = {("onnxruntime", 1): 3.0, ("onnxruntime", 32): 3.0, ("openvino", 1): 14.0, ("openvino", 32): 6.0}
SECONDS = 25.0


def run() -> list[dict[str, Any]]:
    """All rows."""
    task, original = cifar10.task(), resnet_56(weights=True).eval()
    networks = {name: after(original, task, recipe) for name, recipe in NETWORKS.items()}
    rows = thresholds_rows(networks)
    with tempfile.TemporaryDirectory() as folder:
        for name in RUNTIMES:
            runtime = runtime_by_name(name)
            files = files_of({"ResNet-56": original, **networks}, task, runtime, Path(folder))
            rows += agreement_rows(networks["cascade"], task, runtime, files)
            best = dict[str, float]()
            for batch in BATCHES:
                rows += time_rows(files, task, runtime, batch, best)
            rows += score_rows(files, task, runtime, original)
            rows += overhead_rows(original, task, runtime, Path(folder))
    return rows


def thresholds_rows(networks: dict[str, nn.Module]) -> list[dict[str, Any]]:
    """The confidence that each cascade asks for."""
    return [
        row(f"{name}: confidence above which a sample stops", float(sures_in(network)[0].thresholds[0]), "")
        for name, network in networks.items()
        if sures_in(network)
    ]


def files_of(networks: dict[str, nn.Module], task: Task, runtime: Runtime, folder: Path) -> dict[str, Path]:
    """A file for each network; of a cascade one in each form."""
    found = {}
    for name, network in networks.items():
        for form in runtime.path_forms if sures_in(network) else ("",):
            title = f"{name}, {form}" if form else name
            own = folder / f"{runtime.name()} {title}"
            own.mkdir()
            low = lowered(network, task.example)
            found[title] = (runtime.with_paths(form) if form else runtime).lower(low, task.example, own)
    return found


def agreement_rows(network: nn.Module, task: Task, runtime: Runtime, files: dict[str, Path]) -> list[dict[str, Any]]:
    """The float cascade's compaction file beside PyTorch, at several batch sizes, the empty batch among them."""
    running = Running(runtime.load(files["cascade, compaction"], 1))
    inputs = next(iter(task.test.batches(256)))[0]
    rows = []
    with eval_mode(network):
        for batch in (1, 7, 32, 0):
            starts = range(0, 224, batch) if batch else [0]
            wanted = torch.cat([network(inputs[start : start + batch]) for start in starts])
            found = torch.cat([running(inputs[start : start + batch]) for start in starts])
            far = (
                float((found - wanted).abs().max() / wanted.abs().max())
                if batch
                else float(found.shape != wanted.shape)
            )
            what = f"{runtime.name()}, joined file against PyTorch, batch {batch}: largest difference"
            rows.append(row(what, far, "of the largest output", 1e-4))
    return rows


def time_rows(
    files: dict[str, Path], task: Task, runtime: Runtime, batch: int, best: dict[str, float]
) -> list[dict[str, Any]]:
    """How many times faster each file is than ResNet-56 in floats, and the cascade in integers than ResNet-56 in integers."""
    inputs = stream_of(task.test, batch, 1000)
    calls = [[partial(one, given) for given in inputs] for one in running_of(files, runtime)]
    taken = streamed(calls, SECONDS, time.process_time)
    means, names = taken.mean(2), list(files)
    base, integers = means[:, names.index("ResNet-56")], means[:, names.index("int8 ResNet-56")]
    rows = []
    for name in names:
        mine = means[:, names.index(name)]
        low, middle, high = np.quantile(base / mine, (0.25, 0.5, 0.75))
        tails = np.quantile(taken[:, names.index(name)], (0.5, 0.99))
        facts = {"quartiles": [low, high], "mean_ms": float(np.median(mine)), "p50_ms": tails[0], "p99_ms": tails[1]}
        rows.append(row(f"{runtime.name()}, batch {batch}: {name} over ResNet-56 in floats", middle, "x", **facts))
        best[f"{name}, {batch}"] = float(middle)
        best[f"{name}, {batch}, over integers"] = float(np.median(integers / mine))
    place = BATCHES.index(batch)
    for name in ("cascade", "int8 cascade"):
        form = max(runtime.path_forms, key=lambda form: best[f"{name}, {form}, {batch}"])
        what = f"{runtime.name()}, batch {batch}: {name} in its fastest form"
        bar = OVER_FLOATS[name, runtime.name()][place]
        value = best[f"{name}, {form}, {batch}"]
        rows.append(row(f"{what} over ResNet-56 in floats", value, "x", bar, "higher", form=form))
        if name == "int8 cascade":
            value, bar = best[f"{name}, {form}, {batch}, over integers"], OVER_INTEGERS[runtime.name()]
            rows.append(row(f"{what} over ResNet-56 in integers", value, "x", bar, "higher", form=form))
    return rows


def running_of(files: dict[str, Path], runtime: Runtime) -> list[Running]:
    """The files loaded."""
    return [Running(runtime.load(file, 1)) for file in files.values()]


def score_rows(files: dict[str, Path], task: Task, runtime: Runtime, original: nn.Module) -> list[dict[str, Any]]:
    """The score of each file on the test pictures."""
    alone = scores(original, task.test, task.metric)
    rows = []
    for name, file in files.items():
        found = scores(Running(runtime.load(file, 1)), task.test, task.metric)
        change = paired_interval(alone, found, 100.0)
        bar = LEAST_SCORE if "cascade" in name else None
        what = f"{runtime.name()}: accuracy of {name} (95 % interval of the change {change.low:+.2f} to {change.high:+.2f})"
        rows.append(row(what, change.compressed, "%", bar, "higher"))
    return rows


def overhead_rows(original: nn.Module, task: Task, runtime: Runtime, folder: Path) -> list[dict[str, Any]]:
    """What compaction costs when nobody leaves: ResNet-56 with two exits of a linear layer."""
    view = View(working_copy(original), original, task.example)
    for at, channels in (("layer2", 32), ("layer1", 16)):
        view.wrap("", Exit(view.network, at, 4, channels, 10))
    for sure in sures_in(view.network):
        sure.thresholds.fill_(NEVER)
    own = folder / f"{runtime.name()} never"
    for name in ("alone", "exits"):
        (own / name).mkdir(parents=True)
    files = {
        name: runtime.lower(lowered(network, task.example), task.example, own / name)
        for name, network in (("alone", original), ("exits", view.network.eval()))
    }
    rows = []
    for batch in BATCHES:
        inputs = stream_of(task.test, batch, 200 if batch == 1 else 12)
        calls = [[partial(one, given) for given in inputs] for one in running_of(files, runtime)]
        means = streamed(calls, SECONDS / 2, time.process_time).mean(2)
        value = 100 * (float(np.median(means[:, 1] / means[:, 0])) - 1)
        what = f"{runtime.name()}, batch {batch}: cost of two exits where nobody leaves"
        rows.append(row(what, value, "%", OVERHEAD[runtime.name(), batch]))
    return rows
