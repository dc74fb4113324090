"""self_training: ResNet-8 for CIFAR-10 with a tenth of the labels, and pseudo-labels for all other pictures.

The first network learns from 3,500 labels. The second one starts afresh, and learns from the same labels and, at each step, from
as many other pictures, varied, with the class that the first one gives them where it is sure (noisy student). Both see as
many samples, so the first makes twice as many steps. Scored on 10,000 pictures that no training and no choice has seen.
"""

import dataclasses
from statistics import mean
from typing import Any

import torch
from torch import nn

from bench.held_out import TRAIN, fresh
from bench.held_out import task as all_labels
from bench.result import row
from bench.taught import Run, gain_row, run_of
from cortado.methods.finetune import Finetune
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.training.training import Training

SEEDS = [0, 1, 2]
LABELS, STEPS, BATCH = TRAIN // 10, 2500, 128
BAR = 2.0
NAME = "ResNet-8"
PSEUDO = ["task", {"pseudo_labels": {"data": "unlabelled", "confidence": 0.8}}]


def few(seed: int) -> Task:
    """Return the task with a tenth of the labels; the other training pictures are unlabelled."""
    whole = all_labels()
    order = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(seed))
    rest = whole.train.pick(order[LABELS:])
    unlabelled = Data(rest.inputs, None, rest.prepare, rest.augment)
    return dataclasses.replace(whole, train=whole.train.pick(order[:LABELS]), unlabelled=unlabelled, seed=seed)


def trained(seed: int, objectives: list[Any], steps: int, teacher: nn.Module | None = None) -> nn.Module:
    """Return a network trained from fresh weights."""
    network, data = fresh(NAME, seed), few(seed)
    how = Training(
        epochs=steps * BATCH / LABELS, lr=0.1, optimizer="sgd", decay=5e-4, warmup=0.05, precision="bfloat16",
        teacher_sees="original",
    )  # fmt: skip
    method = Finetune(how, objectives=objectives, teacher=teacher or "original")
    method.apply(View(network, network, data.example), data)
    return network


def both(seed: int) -> tuple[Run, Run]:
    """Return the runs of a seed: labels alone, and pseudo-labels by the network that they gave."""
    made: list[nn.Module] = []

    def first() -> nn.Module:
        made.append(made[0] if made else trained(seed, ["task"], 2 * STEPS))
        return made[0]

    alone = run_of("self_training", [NAME, seed, LABELS, 2 * STEPS, "labels"], few(seed), first)
    taught = run_of(
        "self_training", [NAME, seed, LABELS, STEPS, PSEUDO], few(seed), lambda: trained(seed, PSEUDO, STEPS, first())
    )
    return alone, taught


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return accuracies with and without pseudo-labels."""
    torch.set_num_threads(1)
    singles, taught = zip(*(both(seed) for seed in seeds), strict=True)
    return [
        row(f"{NAME}, {LABELS:,} labels", mean(one["test"] for one in singles), "%"),
        row(f"{NAME}, {LABELS:,} labels and pseudo-labels", mean(one["test"] for one in taught), "%"),
        gain_row("pseudo-labels over labels", taught, singles, len(all_labels().test), BAR),
    ]
