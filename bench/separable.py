"""separable: trained networks whose convolutions become depthwise and pointwise pairs, then tuned for a few epochs.

The closed form alone, on the 5,000 pictures that choices are made on (the published ResNet-20 has seen them in its training);
with tuning, the published ResNet-20 on the 1,000 test pictures, and the VGG, trained here, on 10,000 held-out ones. Pieces are
kept: `python -m bench.separable ResNet-20` runs one network.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.half_vgg import half_vgg
from bench.held_out import task as held_out
from bench.kept import kept
from bench.result import PIECES, Clock, row
from bench.timed import times_in_runtimes
from cortado.engine.compress import compress
from cortado.file.artifact import load, save
from cortado.layers.factors import factored_network
from cortado.nets.resnet import resnet_20
from cortado.network.profile.profile import profile
from cortado.task.measure import mean_score
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
FEWER, LOST, MOST_EPOCHS = 3.0, 1.0, 10.0
BATCHES = (1, 32)


@dataclass(frozen=True)
class Case:
    """A trained network, its task, its closed form, and how it is tuned."""

    make: Callable[[], nn.Module]
    task: Callable[[], Task]
    closed: str
    tune: str
    epochs: float


CASES = {
    "ResNet-20": Case(
        lambda: resnet_20(weights=True), cifar10.task, "factorize/separable keep=0.32 where=layer*",
        "finetune epochs=3 lr=0.01 optimizer=sgd teacher=0.7 average=0.3 precision=bfloat16", 3.0,
    ),
    "half-width VGG-16": Case(
        half_vgg, held_out, "factorize/separable keep=0.25 where=features.*",
        "finetune epochs=4 lr=0.01 optimizer=sgd teacher=0.7 average=0.3 precision=bfloat16", 4.0,
    ),
}  # fmt: skip


def file_of(name: str) -> Any:
    """Where the tuned network is kept."""
    return PIECES / f"separable_{name.lower().replace(' ', '_')}.cortado"


def tuned(name: str) -> dict[str, Any]:
    """One network: score of the closed form and of the tuned network, multiply-adds, processor minutes."""
    case, task = CASES[name], CASES[name].task()
    original, clock = case.make().eval().to(memory_format=torch.channels_last), Clock()
    plain = mean_score(original, task.validation, task.metric)
    small, report = compress(original, task, f"{case.closed} | {case.tune}")
    before, after = (profile(one, task.example) for one in (original, small))
    save(small, file_of(name), original)
    assert report.test is not None
    return {
        "closed lost": plain - report.stages[0].score, "lost": report.test.original - report.test.compressed,
        "low": report.test.low, "high": report.test.high, "original": report.test.original,
        "fewer": before.total("multiply_adds").value / after.total("multiply_adds").value,
        "smaller": before.total("parameters").value / after.total("parameters").value, "minutes": clock.minutes,
    }  # fmt: skip


def found(name: str) -> dict[str, Any]:
    """The kept piece of a network, or what it gives now."""
    return kept("separable", [name, CASES[name].closed, CASES[name].tune], lambda: tuned(name), PIECES)


def rows_of_case(name: str) -> list[dict[str, Any]]:
    """Multiply-adds, points lost, and times."""
    one, case = found(name), CASES[name]
    original = case.make().eval()
    small = load(file_of(name), original)
    interval = "no interval" if one["low"] is None else f"95 % interval {-one['high']:.2f} to {-one['low']:.2f}"
    return [
        row(f"{name}: times fewer multiply-adds", one["fewer"], "x", FEWER, "higher"),
        row(f"{name}: times fewer parameters", one["smaller"], "x", None, "higher"),
        row(f"{name}: points lost by the closed form, before any training, on choice", one["closed lost"], "points"),
        row(f"{name}: points lost after {case.epochs:g} epochs ({interval})", one["lost"], "points", LOST),
        row(f"{name}: epochs", case.epochs, "", MOST_EPOCHS),
        *times_in_runtimes(factored_network(small), original, cifar10.task().example, name, BATCHES),
    ]


def run() -> list[dict[str, Any]]:
    """Return the rows of all networks."""
    torch.set_num_threads(1)
    return [one for name in CASES for one in rows_of_case(name)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or CASES:
        print(wanted, found(wanted))
