"""Few bits after training: ResNet-20 and -56 on CIFAR-10, weights of 4, 3 and 2 bits, and weights and signals of 4.

    python -m bench.ptq_low NETWORK WHAT     one of them, kept under bench/cache (ResNet-20, "weights, 3 bits")
    python -m bench ptq_low                  the table and the result of all that were run so

No label is used and nothing is trained: 512 calibration images are looked at. First and last layer have 8 bits in all
ways. The way is chosen by the divergence from the plain network on 1,000 choice images; the verdict images are used
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
from cortado.file.artifact import encode
from cortado.measure import outputs_of, scores
from cortado.methods.match import Match
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.network.settling import settle
from cortado.network.view import View
from cortado.recipe import read
from cortado.report import paired_interval
from cortado.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
NETWORKS = {"ResNet-20": resnet_20, "ResNet-56": resnet_56}
EDGES = {"ResNet-20": "conv1, linear", "ResNet-56": "conv1, linear"}
BARS = {"weights, 4 bits": 0.3, "weights, 3 bits": 1.0, "weights, 2 bits": 5.0, "weights and signals, 4 bits": 1.2}
WAYS = {
    "weights, 4 bits": ("quantize/second_order bits=4",),
    "weights, 3 bits": ("quantize/second_order bits=3", "quantize/second_order bits=3 symmetric=False"),
    "weights, 2 bits": ("quantize/second_order bits=2", "quantize/second_order bits=2 symmetric=False"),
    "weights and signals, 4 bits": (
        "quantize/signals bits=4 | quantize/second_order bits=4",
        "quantize/second_order bits=4 | quantize/signals bits=4",
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
    return kept(f"ptq_low/{stem(name, what)}", [WAYS[what], CHOICE_IMAGES], lambda: fresh(name, what))


def fresh(name: str, what: str) -> dict[str, Any]:
    """The best way, and rounding to nearest, on the verdict images."""
    clock, task, plain = Clock(), cifar10.task(), NETWORKS[name](weights=True).eval()
    tried = []
    for way in WAYS[what]:
        network = rounded(plain, task, way)
        tried.append({"way": way, "network": network, "divergence": far(plain, network, task)})
    best = min(tried, key=lambda one: one["divergence"])
    bits = int(what.split()[-2])
    nearest = (
        f'quantize/weights bits=8 where={EDGES[name]} | quantize/weights bits={bits} where="*, not conv1, not linear"'
    )
    nearest += f" | quantize/signals bits={bits}" if "signals" in what else ""
    before = scores(plain, task.verdict, task.score)
    found = {"minutes": clock.minutes, "way": best["way"], "file": len(encode(best["network"], plain))}
    for key, network in (("best", best["network"]), ("nearest", rounded(plain, task, nearest.replace('"', "")))):
        compared = paired_interval(before, scores(network, task.verdict, task.score), task.score.scale)
        found[key] = {"plain": compared.plain, "score": compared.compressed, "low": compared.low, "high": compared.high}
    return found | {"divergence": best["divergence"], "images": len(before)}


def rounded(plain: nn.Module, task: Task, recipe: str) -> nn.Module:
    """The network after a recipe, moments matched to the plain one's."""
    network = copy.deepcopy(plain)
    view = View(network, plain, task.example, reference=plain)
    for stage in read(recipe).stages:
        stage.apply(view, task)
    Match().apply(view, task)
    settle(network)
    return network


def far(plain: nn.Module, network: nn.Module, task: Task) -> float:
    """Mean divergence of the outputs on choice images, in nats."""
    with torch.no_grad():
        parts = [
            divergence(outputs_of(plain, inputs), outputs_of(network, inputs)).sum()
            for inputs, _ in task.choice.first(CHOICE_IMAGES).batches(100)
        ]
    return float(sum(parts)) / CHOICE_IMAGES


def rows_of(name: str, what: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    best, nearest = found["best"], found["nearest"]
    interval = f"95 % interval {-best['high']:.2f} to {-best['low']:.2f}, paired, {found['images']} images"
    lost, beside = (one["plain"] - one["score"] for one in (best, nearest))
    return [
        row(
            f"{name}, {what} ({found['way']}): points lost ({interval})",
            lost,
            "points",
            BARS[what],
            score=best["score"],
        ),
        row(f"{name}, {what}, to nearest and matched: points lost", beside, "points"),
        row(f"{name}, {what}: divergence on choice images", found["divergence"], "nats", minutes=found["minutes"]),
        row(f"{name}, {what}: file", found["file"], "B"),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(f"{piece(sys.argv[1], sys.argv[2])}\n")
