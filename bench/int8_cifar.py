"""int8 ResNets on CIFAR-10: what the exported file scores, how far it agrees, and two quantizers beside it.

Weights and activations are rounded after training, with 512 calibration images. Each tool's setting is chosen by the mean
divergence of its file's answers from the original network's on 1,000 validation images (the ResNets have seen these in their
training, so that their accuracy says little there); the test images are used once for each chosen file.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.after import after
from bench.kept import kept
from bench.result import row
from bench.rivals import static_int8
from cortado.lowering.lower import lowered
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.nets.resnet_8 import resnet_8
from cortado.report.record import INT8, UNREPORTED
from cortado.report.report import paired_interval
from cortado.running.call import call
from cortado.runtimes.placements import kernel_share, placements
from cortado.runtimes.runtime import Running, Runtime, runtime_by_name
from cortado.task.task import Data, Task
from cortado.tasks import cifar10
from cortado.tasks.pixels import Normalise

SEEDS = [0]
CHOICE_IMAGES, CALIBRATION_IMAGES = 1_000, 512
RAW = Normalise(mean=(0.0,) * 3, std=(1 / 255,) * 3)
"""Pixels from 0 to 255, as ResNet-8 was trained on."""
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-20": lambda: resnet_20(weights=True),
    "ResNet-56": lambda: resnet_56(weights=True),
    "ResNet-8": lambda: resnet_8(weights=True),
}
RECIPES = {
    f"{bits} bits, {reach}": f"quantize/weights bits={bits} | quantize/activations range={reach} | match_moments"
    for bits in (7, 8)
    for reach in ("mse", "full", "percentile")
} | {
    f"7 bits of second order, {reach}": f"quantize/activations range={reach} | quantize/second_order bits=7 | match_moments"
    for reach in ("mse", "full")
}
RUNTIMES = ("onnxruntime", "openvino")


def run() -> list[dict[str, Any]]:
    """All networks, each by Cortado in two runtimes and by the two rivals."""
    return [one for name in NETWORKS for one in kept(f"int8_cifar/{name}", RECIPES, partial(kept_rows, name))["rows"]]


def kept_rows(name: str) -> dict[str, Any]:
    return {"rows": rows_of(name)}


def task_of(name: str) -> Task:
    """CIFAR-10, for ResNet-8 with pixels as they are."""
    task = cifar10.task()
    if name != "ResNet-8":
        return task
    parts = {part: getattr(task, part) for part in ("train", "validation", "test", "calibration")}
    return replace(task, **{part: Data(data.inputs, data.targets, RAW) for part, data in parts.items()})


def rows_of(name: str) -> list[dict[str, Any]]:
    task, original = task_of(name), NETWORKS[name]().eval()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        networks = {way: after(original, task, recipe) for way, recipe in RECIPES.items()}
        made = {f"Cortado, {runtime}": ours(original, task, networks, runtime, Path(folder)) for runtime in RUNTIMES}
        made |= rival_files(original, task, Path(folder))
        found = {tool: test(original, task, one) for tool, one in made.items()}
        for tool, one in found.items():
            says = f"{name}, {tool} ({made[tool]['way']}): points lost ({one['interval']})"
            own = tool.startswith("Cortado")
            rows.append(
                row(says, one["lost"], "points", 0.2 if own else None, score=one["score"], original=one["original"])
            )
            rows.append(
                row(f"{name}, {tool}: same top-1 as the original network", one["same_plain"], "%", None, "higher")
            )
            if own:
                same = agreement(made[tool], task)
                rows.append(row(f"{name}, {tool}: same top-1 as in PyTorch", same, "%", 98, "higher"))
                share = made[tool]["coverage"]
                rows.append(row(f"{name}, {tool}: multiply-adds in integers", share, "%", None, "higher"))
            rows.append(row(f"{name}, {tool}: file", made[tool]["bytes"], "B"))
    best = min(found[tool]["lost"] for tool in found if not tool.startswith("Cortado"))
    mine = min(found[tool]["lost"] for tool in found if tool.startswith("Cortado"))
    rows.append(row(f"{name}: points lost; the better rival's as bar", mine, "points", best))
    return rows


def ours(
    original: nn.Module, task: Task, networks: dict[str, nn.Module], runtime_name: str, folder: Path
) -> dict[str, Any]:
    """Of the networks by their ways the one whose file diverges least from the original network."""
    runtime, tried = runtime_by_name(runtime_name), []
    for way, network in networks.items():
        own = folder / f"{runtime_name}_{len(tried)}"
        own.mkdir()
        file = runtime.lower(lowered(network, task.example), task.example, own)
        tried.append({"way": way, "network": network, **judged(original, task, runtime, file)})
    best = min(tried, key=lambda one: one["divergence"])
    found = placements(runtime, best["file"], best["network"], task.example)
    return {**best, "coverage": None if kernel_share(found, UNREPORTED) else 100 * kernel_share(found, INT8)}


def rival_files(original: nn.Module, task: Task, folder: Path) -> dict[str, dict[str, Any]]:
    """The best file of each rival, judged as ours are."""
    assert task.calibration is not None
    source = runtime_by_name("onnxruntime").lower(lowered(original, task.example), task.example, folder)
    batches = [inputs for inputs, _ in task.calibration.first(CALIBRATION_IMAGES).batches(64)]
    tools: dict[str, tuple[Any, Any, str, str]] = {
        "ONNX Runtime's quantizer": (static_int8.onnx_runtime, static_int8.ONNX_WAYS, "onnxruntime", ".onnx"),
        "NNCF": (static_int8.nncf, static_int8.NNCF_WAYS, "openvino", ".xml"),
    }
    found = {}
    for tool, (make, candidate_recipes, runtime_name, suffix) in tools.items():
        tried = []
        for number, way in enumerate(candidate_recipes):
            own = folder / f"{make.__name__}_{number}"
            own.mkdir()
            file = make(source, own / f"net{suffix}", batches, way)
            tried.append({"way": way, **judged(original, task, runtime_by_name(runtime_name), file)})
        found[tool] = min(tried, key=lambda one: one["divergence"])
    return found


def judged(original: nn.Module, task: Task, runtime: Runtime, file: Path) -> dict[str, Any]:
    """A file with its bytes and how far its answers diverge from the original network's on validation images."""
    running = Running(runtime.load(file, 1))
    total = 0.0
    with torch.no_grad():
        for inputs, _ in task.validation.first(CHOICE_IMAGES).batches(100):
            total += float(divergence(call(original, inputs), call(running, inputs)).sum())
    size = sum(part.stat().st_size for part in file.parent.iterdir())
    return {"file": file, "running": running, "divergence": total / CHOICE_IMAGES, "bytes": size}


def divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Kullback-Leibler, in nats, of each sample."""
    one, other = wanted.log_softmax(1), found.log_softmax(1)
    return (one.exp() * (one - other)).sum(1)


def answers(network: nn.Module, data: Data) -> tuple[Tensor, Tensor]:
    """The class chosen for each sample, and whether it is right (1.0 or 0.0)."""
    with torch.no_grad():
        pairs = [(call(network, inputs).argmax(1), targets) for inputs, targets in data.batches(100)]
    chosen, targets = (torch.cat(part) for part in zip(*pairs, strict=True))
    return chosen, (chosen == targets).float()


def test(original: nn.Module, task: Task, one: dict[str, Any]) -> dict[str, Any]:
    """Points lost on the test images, from the file, and how often it answers as the original network does."""
    (before, right), (after, still) = (answers(net.eval(), task.test) for net in (original, one["running"]))
    compared = paired_interval(right, still, task.metric.scale)
    interval = "unknown" if compared.low is None else f"95 % interval {-compared.high:.2f} to {-compared.low:.2f}"
    return {
        "lost": -compared.difference,
        "interval": f"{interval}, paired, {compared.samples} images",
        "score": compared.compressed,
        "original": compared.original,
        "same_plain": 100 * float((before == after).float().mean()),
    }


def agreement(one: dict[str, Any], task: Task) -> float:
    """How often the file and the same network in PyTorch give the same class, in %."""
    mine, theirs = (answers(net.eval(), task.test)[0] for net in (one["network"], one["running"]))
    return 100 * float((mine == theirs).float().mean())
