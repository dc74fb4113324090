"""fitnets (Romero et al., 2015): a thin deep network for CIFAR-10 from labels, from softened outputs, and after a hint.

The student has 17 layers of 8 to 16 channels with neither residual paths nor batch norms, and a tenth of the weights of
its teacher, ResNet-20. All train on the same 35,000 pictures, not varied, for as many passes in all: hints take 3 of the 11.
Scored on 10,000 pictures that neither of them has seen (bench/held_out.py), by which nothing is chosen. Each run is kept as
it ends.
"""

from collections import OrderedDict
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from bench.held_out import task, trained
from bench.result import row
from bench.taught import Run, gain_row, run_of
from cortado.methods.distill.hints import DistillHints
from cortado.methods.finetune import Finetune
from cortado.methods.method import Method
from cortado.network.view import View
from cortado.task.task import Task
from cortado.training.training import Training

SEEDS = [0]
TEACHER = "ResNet-20"
PASSES, HINT_PASSES = 11.0, 3.0
STAGES = {"first": (3, *[8] * 5), "middle": (8, *[16] * 6), "last": (16, *[16] * 5)}
"""Channels into and out of the convolutions of each stage; the linear layer is the 17th."""


class ThinDeep(nn.Sequential):
    """Three stages of 3 x 3 convolutions, pooled between them, and a linear layer."""

    def __init__(self) -> None:
        stages = OrderedDict((name, stage(widths)) for name, widths in STAGES.items())
        first, middle, last = stages.values()
        super().__init__(
            OrderedDict(
                first=first, pool=nn.MaxPool2d(2), middle=middle, pool_again=nn.MaxPool2d(2), last=last,
                mean=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(STAGES["last"][-1], 10),
            )
        )  # fmt: skip


def stage(widths: tuple[int, ...]) -> nn.Sequential:
    """Return convolutions with ReLU between these widths, so initialised that deep values keep their size (He et al., 2015)."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layer = nn.Conv2d(inside, outside, 3, padding=1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)


def how(passes: float) -> Training:
    """Return how all runs train."""
    return Training(epochs=passes, lr=2e-3, warmup=0.05, clip=5.0, precision="float32")


def hinted(hint_passes: float) -> Method:
    """Return the method with so many passes of hints, in the place of passes on outputs and labels."""
    at = {"at": "middle", "of": "layer2"} if hint_passes else {}
    return DistillHints(how(PASSES - hint_passes), hint_epochs=hint_passes, teacher=trained(TEACHER, 0), **at)


@cache
def plain(seed: int) -> Task:
    """Return the task without variation, so that a teacher is asked once for each picture."""
    whole = task()
    return replace(whole, train=whole.train.original(), seed=seed)


def learned(way: str, seed: int, method: Method) -> Run:
    """Return the run of a student that learns by this method."""

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            network = ThinDeep()
        data = plain(seed)
        method.apply(View(network, network, data.example), data)
        return network.eval()

    return run_of("fitnets", [way, seed, PASSES, HINT_PASSES * ("hints" in way), STAGES], task(), make)


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the accuracy of each way to learn, and what teacher and hints are worth."""
    torch.set_num_threads(1)
    ways = {"labels": Finetune(how(PASSES)), "logits": hinted(0.0), "hints and logits": hinted(HINT_PASSES)}
    found = {way: [learned(way, seed, method) for seed in seeds] for way, method in ways.items()}
    count = len(task().test)
    table = [
        row(
            f"thin deep network from {way}", sum(one["test"] for one in runs) / len(runs), "%",
            minutes=[one["minutes"] for one in runs],
        )
        for way, runs in found.items()
    ]  # fmt: skip
    gains = [
        gain_row(f"{one} over {other}", found[one], found[other], count, 0.0 if one.startswith("hints") else None)
        for one, other in (("logits", "labels"), ("hints and logits", "logits"))
    ]
    gains[-1]["source_value"] = "0.14 points (MNIST)"
    return [*table, *gains]
