"""shape_search: width, depth and resolution of a network searched under measured latency, by three samplers at equal trials.

Each trial makes a ResNet of these options, trains it shortly on 8,000 pictures, scores it on 5,000 others and measures one
sample in ONNX Runtime. The hypervolume is the area that the trials cover between the latency of the largest network and 0, and
between 10 % and 100 % accuracy: 1 would be a perfect network in no time. Pieces are kept: `python -m bench.shape_search tpe 0`
runs one search.
"""

import dataclasses
import sys
import tempfile
from statistics import mean
from typing import Any

import torch

from bench.held_out import task as held_out
from bench.kept import kept
from bench.result import PIECES, Clock, row, spread
from cortado.nets.catalog import by_name
from cortado.planner.search.trial_search import search
from cortado.task.task import Task

SEEDS = [0, 1, 2]
TRIALS, PICTURES, EPOCHS = 24, 8_000, 1.0
OPTIONS = {"width": "4..24", "depth": "1..3", "resolution": "16..32"}
LARGEST = {"width": 24, "depth": 3, "resolution": 32}
TAUGHT = {
    "training": {
        "epochs": EPOCHS,
        "lr": 0.1,
        "optimizer": "sgd",
        "decay": 5.0e-4,
        "warmup": 0.1,
        "precision": "bfloat16",
    }
}
RECIPE = [{"student": {"network": "cifar_resnet", "options": OPTIONS}}, {"finetune": TAUGHT}]
SAMPLERS = ("tpe", "random", "n2n")
CHANCE, WHOLE = 10.0, 100.0
GAIN = 0.0
"""Hypervolume of the learned samplers over random ones."""


def task(seed: int) -> Task:
    """Return the task of a seed: some of the training pictures."""
    whole = held_out()
    order = torch.randperm(len(whole.train), generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(whole, train=whole.train.pick(order[:PICTURES]), seed=seed)


def searched(sampler: str, seed: int) -> dict[str, Any]:
    """Return the latency and score of every trial of a search."""
    settings = [sampler, seed, TRIALS, RECIPE, PICTURES]

    def make() -> dict[str, Any]:
        clock, given = Clock(), task(seed)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            original = by_name("cifar_resnet", **LARGEST)
        with tempfile.TemporaryDirectory() as folder:
            found = search(
                original, given, RECIPE, trials=TRIALS, minimise="latency", folder=folder, runtimes=["onnxruntime"],
                sampler=sampler,
            )  # fmt: skip
        done = [[one.latency_ms, one.score, one.point] for one in found.trials if one.done]
        return {"trials": done, "minutes": clock.minutes}

    return kept("shape_search", settings, make, PIECES)


def hypervolume(points: list[tuple[float, float]], slowest: float) -> float:
    """Return the share of the area of faster and better networks that some point covers; points are (ms, %)."""
    area, best = 0.0, CHANCE
    inside = sorted(one for one in points if one[0] < slowest and one[1] > CHANCE)
    for latency, score in inside:
        if score > best:
            area += (slowest - latency) * (score - best)
            best = score
    return area / (slowest * (WHOLE - CHANCE))


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return each sampler's hypervolume, and the gains over random trials."""
    torch.set_num_threads(1)
    found = {(name, seed): searched(name, seed) for name in SAMPLERS for seed in seeds}
    # One clock for a seed: the slowest of all its trials.
    slowest = {seed: max(one[0] for name in SAMPLERS for one in found[name, seed]["trials"]) for seed in seeds}
    volumes = {
        name: [hypervolume([(one[0], one[1]) for one in found[name, seed]["trials"]], slowest[seed]) for seed in seeds]
        for name in SAMPLERS
    }
    rows = [spread(f"{name}: hypervolume after {TRIALS} trials", volumes[name], "") for name in SAMPLERS]
    for name in ("tpe", "n2n"):
        gain = mean(volumes[name]) - mean(volumes["random"])
        rows.append(row(f"{name} over random: hypervolume", gain, "", GAIN, "higher"))
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(searched(sys.argv[1], int(sys.argv[2])))
