"""Few bits after training: ResNet-20 and -56 on CIFAR-10, weights of 4, 3 and 2 bits, and weights and activations of 4.

    python -m bench.ptq_low NETWORK WHAT     one of them, kept under bench/cache (ResNet-20, "weights, 3 bits")
    python -m bench ptq_low                  the table and the result of all that were run so

No label is used and nothing is trained: 512 calibration images are looked at. First and last layer have 8 bits in all
ways. The way is chosen by the divergence from the original network on 1,000 validation images; the test images are used
once for each chosen network. Rounding to the nearest level with matched moments stands beside it.
"""

import copy
import sys
from typing import Any

import torch
from torch import nn

from bench.int8_cifar import CHOICE_IMAGES, divergence
from bench.kept import kept
from bench.result import CACHE, Clock, row
from cortado.engine.recipe import read_recipe
from cortado.file.artifact import encode
from cortado.methods.match_moments import MatchMoments
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.network.finalize import finalize
from cortado.network.view import View
from cortado.report.report import paired_interval
from cortado.running.call import call
from cortado.task.measure import scores
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
NETWORKS = {"ResNet-20": resnet_20, "ResNet-56": resnet_56}
EDGES = {"ResNet-20": "conv1, linear", "ResNet-56": "conv1, linear"}
BARS = {"weights, 4 bits": 0.3, "weights, 3 bits": 1.0, "weights, 2 bits": 5.0, "weights and activations, 4 bits": 1.2}
CANDIDATE_RECIPES = {
    "weights, 4 bits": ("quantize/second_order bits=4",),
    "weights, 3 bits": ("quantize/second_order bits=3", "quantize/second_order bits=3 symmetric=False"),
    "weights, 2 bits": ("quantize/second_order bits=2", "quantize/second_order bits=2 symmetric=False"),
    "weights and activations, 4 bits": (
        "quantize/activations bits=4 | quantize/second_order bits=4",
        "quantize/second_order bits=4 | quantize/activations bits=4",
    ),
}


def run() -> list[dict[str, Any]]:
    """All networks and widths that were run before; each takes minutes."""
    made = [
        (name, what) for name in NETWORKS for what in BARS if any((CACHE / "ptq_low").glob(f"{stem(name, what)}_*"))
    ]
    return [one for name, what in made for one in rows_of(name, what, piece(name, what))]


def stem(name: str, what: str) -> str:
    return f"{name}_{what.replace(' ', '_')}"


def piece(name: str, what: str) -> dict[str, Any]:
    return kept(f"ptq_low/{stem(name, what)}", [CANDIDATE_RECIPES[what], CHOICE_IMAGES], lambda: fresh(name, what))


def fresh(name: str, what: str) -> dict[str, Any]:
    """The best way, and rounding to nearest, on the test images."""
    clock, task, original = Clock(), cifar10.task(), NETWORKS[name](weights=True).eval()
    tried = []
    for way in CANDIDATE_RECIPES[what]:
        network = rounded(original, task, way)
        tried.append({"way": way, "network": network, "divergence": far(original, network, task)})
    best = min(tried, key=lambda one: one["divergence"])
    bits = int(what.split()[-2])
    nearest = (
        f'quantize/weights bits=8 where={EDGES[name]} | quantize/weights bits={bits} where="*, not conv1, not linear"'
    )
    nearest += f" | quantize/activations bits={bits}" if "activations" in what else ""
    before = scores(original, task.test, task.metric)
    found = {"minutes": clock.minutes, "way": best["way"], "file": len(encode(best["network"], original))}
    for key, network in (("best", best["network"]), ("nearest", rounded(original, task, nearest.replace('"', "")))):
        compared = paired_interval(before, scores(network, task.test, task.metric), task.metric.scale)
        found[key] = {
            "original": compared.original,
            "score": compared.compressed,
            "low": compared.low,
            "high": compared.high,
        }
    return found | {"divergence": best["divergence"], "images": len(before)}


def rounded(original: nn.Module, task: Task, recipe: str) -> nn.Module:
    """The network after a recipe, moments matched to the original's."""
    network = copy.deepcopy(original)
    view = View(network, original, task.example, reference=original)
    for stage in read_recipe(recipe).stages:
        stage.apply(view, task)
    MatchMoments().apply(view, task)
    finalize(network)
    return network


def far(original: nn.Module, network: nn.Module, task: Task) -> float:
    """Mean divergence of the outputs on validation images, in nats."""
    with torch.no_grad():
        parts = [
            divergence(call(original, inputs), call(network, inputs)).sum()
            for inputs, _ in task.validation.first(CHOICE_IMAGES).batches(100)
        ]
    return float(sum(parts)) / CHOICE_IMAGES


def rows_of(name: str, what: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    best, nearest = found["best"], found["nearest"]
    interval = f"95 % interval {-best['high']:.2f} to {-best['low']:.2f}, paired, {found['images']} images"
    lost, beside = (one["original"] - one["score"] for one in (best, nearest))
    return [
        row(
            f"{name}, {what} ({found['way']}): points lost ({interval})",
            lost,
            "points",
            BARS[what],
            score=best["score"],
        ),
        row(f"{name}, {what}, to nearest and matched: points lost", beside, "points"),
        row(f"{name}, {what}: divergence on validation images", found["divergence"], "nats", minutes=found["minutes"]),
        row(f"{name}, {what}: file", found["file"], "B"),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(f"{piece(sys.argv[1], sys.argv[2])}\n")
