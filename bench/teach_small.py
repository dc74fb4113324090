"""teach_small: small networks trained from scratch for CIFAR-10, alone and taught by ResNet-56.

All train for 20 epochs on the same stored pictures in the same order (bench/held_out.py), and are scored on 10,000 pictures
that they have not seen; the teacher has, and its own score on them is none. Each objective is tried on ResNet-8 with one
seed at the same number of steps; the best on the 5,000 validation pictures is trained with the other seeds, and on a student
twice as wide (bench/teach_wide.py).
Weights of terms are those of the papers or the defaults. The teacher's answers are computed once, and kept.
"""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from torch import nn

from bench.held_out import EPOCHS, fresh, stored, task, trained, training
from bench.result import row
from bench.taught import Run, gain_row, run_of
from cortado.methods.finetune import Finetune
from cortado.nets.resnet import resnet_56
from cortado.network.view import View

SEEDS = [0, 1, 2]
BAR = 1.0
SMALL, WIDE = "ResNet-8", "ResNet-8, twice as wide"
LAST = {"at": "layer3"}
PLACES = 64
"""Of a map of the last layer."""
WAYS: dict[str, list[Any]] = {
    "logits": [{"task": {"weight": 0.1}}, {"logits": {"weight": 0.9, "temperature": 4.0}}],
    "standardised logits": [{"task": {"weight": 0.1}}, {"logits": {"weight": 0.9, "temperature": 2.0, "standardised": True}}],
    "decoupled": ["task", {"decoupled": {"alpha": 1.0, "beta": 2.0, "temperature": 4.0}}],
    "DIST": ["task", {"dist": {"weight": 2.0}}],
    "attention": ["task", {"attention": {**LAST, "weight": 500 / PLACES}}],
    "features": ["task", {"features": {**LAST, "regressor": "always"}}],
    "relational": ["task", {"relational": {**LAST, "weight": 25.0}}],
    "contrastive": ["task", {"contrastive": {**LAST, "weight": 0.8}}],
    "neurons": ["task", {"neurons": {**LAST}}],
    "pair-wise": ["task", {"pairwise": {**LAST, "weight": 5.0}}],
}  # fmt: skip


def alone(name: str, seed: int) -> Run:
    """Return the run of a student that learns from labels."""
    return run_of("teach_small", [name, seed, EPOCHS, "alone"], task(), lambda: trained(name, seed))


def taught(name: str, seed: int, objectives: list[Any]) -> Run:
    """Return the run of a student that ResNet-56 teaches."""

    def make() -> nn.Module:
        from dataclasses import replace

        network, data = fresh(name, seed), replace(stored(), seed=seed)
        how = replace(training(), cache="kept")
        method = Finetune(how, objectives=objectives, teacher=resnet_56(weights=True).eval())
        method.apply(View(network, network, data.example), data)
        return network

    return run_of("teach_small", [name, seed, EPOCHS, objectives], task(), make)


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the table of objectives, and the gain of the best one on all students."""
    torch.set_num_threads(1)
    count = len(task().test)
    first = alone(SMALL, seeds[0])
    tried = tried_ways(seeds[0])
    best = best_way(seeds[0])
    table = [
        row(f"{SMALL}, seed {seeds[0]}: {way}", one["test"], "%", validation=one["validation"], minutes=one["minutes"])
        for way, one in {"alone": first, **tried}.items()
    ]
    gains = [
        gain_row(f"{SMALL}: {way} over alone, one seed", [one], [first], count)
        for way, one in tried.items() if way != best
    ]  # fmt: skip
    return [*table, *gains, *compared(SMALL, seeds, best, count)]


def tried_ways(seed: int) -> dict[str, Run]:
    """Return the run of every objective."""
    return {way: taught(SMALL, seed, objectives) for way, objectives in WAYS.items()}


def best_way(seed: int) -> str:
    """Return the objective that is best on the validation pictures."""
    tried = tried_ways(seed)
    return max(tried, key=lambda way: tried[way]["validation"])


def compared(name: str, seeds: Sequence[int], best: str, count: int) -> list[dict[str, Any]]:
    """Return the rows of a student, alone and taught by the best objective."""
    singles = [alone(name, seed) for seed in seeds]
    learned = [taught(name, seed, WAYS[best]) for seed in seeds]
    return [
        row(f"{name}: alone", mean(one["test"] for one in singles), "%"),
        row(f"{name}: taught, {best}", mean(one["test"] for one in learned), "%"),
        gain_row(f"{name}: {best} over alone, {len(seeds)} seeds", learned, singles, count, BAR),
    ]
