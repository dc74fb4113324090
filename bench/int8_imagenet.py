"""int8_imagenet: networks for ImageNet in integers, what their files score in ONNX Runtime, and what too simple a way costs.

500 pictures in three parts drawn by seed: 100 to calibrate with, 100 on which the divergence of answers chooses how far
the activations' grids reach, 300 for the test result. The networks have probably seen these pictures in their training: points
lost are what counts. The MobileNets come from integers of 8 bits with one scale and one zero a tensor, in which they had
been trained; fewer bits around zero are another grid. One picture of the test result is a third of a point.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.after import after
from bench.int8_cifar import divergence
from bench.kept import kept
from bench.result import row
from cortado.lowering.lower import lowered
from cortado.machine import processor_saturates
from cortado.nets.mobilenet_folded import mobilenet_v1_folded, mobilenet_v2_folded
from cortado.nets.squeezenet import squeezenet_deep_compression
from cortado.nets.tiny_darknet import tiny_darknet
from cortado.nets.weights import weights_path
from cortado.report.record import INT8, UNREPORTED
from cortado.report.report import paired_interval
from cortado.running.call import call
from cortado.runtimes.placements import kernel_share, placements
from cortado.runtimes.runtime import Running, runtime_by_name
from cortado.task.task import Data, Task
from cortado.tasks import imagenet
from cortado.tasks.imagenet import Picture
from cortado.tasks.pixels import Normalise

SEEDS = [0]
RUNTIME, BAR = "onnxruntime", 0.5
BITS = 7 if processor_saturates() else 8
SIGNED = Normalise(mean=(128 / 255,) * 3, std=(128 / 255,) * 3)
BYTES = Normalise(mean=(104 / 255, 117 / 255, 123 / 255), std=(1 / 255,) * 3)
Made = tuple[Callable[[], nn.Module], Picture]


def smallest_v1() -> nn.Module:
    """Width 0.25, 128 pixels a side."""
    path = weights_path(True, "mobilenet_v1_0.25_128_qat_int8.npz")
    return mobilenet_v1_folded(width=0.25, weights=path)


NETWORKS: dict[str, Made] = {
    "MobileNetV2": (lambda: mobilenet_v2_folded(weights=True), Picture(normalise=SIGNED)),
    "MobileNetV1, 0.25, 128": (smallest_v1, Picture(size=128, normalise=SIGNED)),
    "Tiny Darknet": (
        lambda: tiny_darknet(weights=True),
        Picture(normalise=Normalise(mean=(0.0,) * 3, std=(1.0,) * 3)),
    ),
    "MobileNetV1, 0.75, 192": (
        lambda: mobilenet_v1_folded(width=0.75, weights=True),
        Picture(size=192, normalise=SIGNED),
    ),
    "SqueezeNet": (
        lambda: squeezenet_deep_compression()[0],
        Picture(crop=227, size=227, normalise=BYTES, blue_first=True),
    ),
}
REACHES = ("mse", "full", "percentile")
UNTREATED = {
    "untreated, one scale a channel": f"quantize/weights bits={BITS} clip=range | quantize/activations range=full",
    "untreated, one scale a tensor": f"quantize/weights bits={BITS} per=tensor clip=range | quantize/activations range=full",
}


@dataclass(frozen=True)
class Judge:
    """The original network's answers on both parts, worked out once."""

    original: nn.Module
    task: Task
    on_choice: Tensor
    on_verdict: Tensor

    @classmethod
    def of(cls, original: nn.Module, task: Task) -> "Judge":
        return cls(original, task, answers(original, task.validation), answers(original, task.test))

    def diverges(self, network: nn.Module) -> float:
        """Nats from the original network's answers, mean over the validation pictures."""
        return float(divergence(self.on_choice, answers(network, self.task.validation)).mean())


def answers(network: nn.Module, data: Data) -> Tensor:
    with torch.no_grad():
        return torch.cat([call(network.eval(), inputs) for inputs, _ in data.batches(25)])


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """All networks; each one's rows are kept as soon as they are there."""
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for name in NETWORKS:
            settings = [name, seed, BITS, REACHES, UNTREATED]
            mark = "".join(letter for letter in name.lower() if letter.isalnum())
            rows += kept(f"int8_imagenet_{mark}", settings, partial(kept_rows, name, seed))["rows"]
    return rows


def kept_rows(name: str, seed: int) -> dict[str, Any]:
    return {"rows": rows_of(name, seed)}


def rows_of(name: str, seed: int) -> list[dict[str, Any]]:
    make, picture = NETWORKS[name]
    original, task = make().eval(), imagenet.task(seed, picture)
    judge, runtime = Judge.of(original, task), runtime_by_name(RUNTIME)
    targets = task.test.targets
    rows = [row(f"{name}: plain", 100 * float((judge.on_verdict.argmax(1) == targets).float().mean()), "%")]
    candidate_recipes = {
        reach: f"quantize/weights bits={BITS} | quantize/activations range={reach} | match_moments" for reach in REACHES
    }
    with tempfile.TemporaryDirectory() as folder:
        made = {
            way: in_integers(judge, recipe, Path(folder)) for way, recipe in {**candidate_recipes, **UNTREATED}.items()
        }
        best = min(candidate_recipes, key=lambda way: float(made[way]["divergence"]))
        for way in (best, *UNTREATED):
            rows.append(lost_row(f"{name}, {way}", judge, made[way], BAR if way == best else None))
        mine = made[best]
        same = answers(mine["network"], task.test).argmax(1) == answers(mine["running"], task.test).argmax(1)
        rows.append(row(f"{name}: same top-1 in PyTorch", 100 * float(same.float().mean()), "%", None, "higher"))
        found = placements(runtime, mine["file"], mine["network"], task.example)
        if kernel_share(found, UNREPORTED) == 0:
            rows.append(row(f"{name}: multiply-adds in integers", 100 * kernel_share(found, INT8), "%", None, "higher"))
        rows.append(row(f"{name}: file", mine["file"].stat().st_size, "B"))
    return rows


def in_integers(judge: Judge, recipe: str, folder: Path) -> dict[str, Any]:
    """The network after the recipe, its file, and how far that diverges."""
    network, task, runtime = after(judge.original, judge.task, recipe), judge.task, runtime_by_name(RUNTIME)
    own = Path(tempfile.mkdtemp(dir=folder))
    file = runtime.lower(lowered(network, task.example), task.example, own)
    running = Running(runtime.load(file, torch.get_num_threads()))
    return {"network": network, "file": file, "running": running, "divergence": judge.diverges(running)}


def lost_row(what: str, judge: Judge, made: dict[str, Any], bar: float | None) -> dict[str, Any]:
    """Points lost on the test result pictures, from the file, with the paired interval."""
    targets = judge.task.test.targets
    found = answers(made["running"], judge.task.test)
    right, still = ((some.argmax(1) == targets).float() for some in (judge.on_verdict, found))
    compared = paired_interval(right, still, judge.task.metric.scale)
    interval = "unknown" if compared.low is None else f"95 % interval {-compared.high:.2f} to {-compared.low:.2f}"
    label = f"{what}: points lost ({interval}, paired, {compared.samples} images)"
    same = 100 * float((judge.on_verdict.argmax(1) == found.argmax(1)).float().mean())
    facts = {"score": compared.compressed, "original": compared.original, "same_as_plain": same, "weight_bits": BITS}
    return row(label, -compared.difference, "points", bar, **facts, choice_nats=made["divergence"])
