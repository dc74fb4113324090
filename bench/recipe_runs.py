"""Recipes as they stand in recipes/, run on their network: score, multiply-adds and bytes before and after.

    python -m bench.recipe_runs RECIPE ...    these, each kept under bench/cache; a killed one goes on at its last stage
    python -m bench.recipe_runs RECIPE@1      the same with seed 1

Where torch sees a GPU, it trains; scores and files are made on the CPU all the same.

VGG-16 is the half-width one that is trained here (half_vgg.py), as no published weights are at hand. The test data
are used once for each recipe as it stands; nothing is chosen by what comes out on them.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.half_vgg import half_vgg
from bench.kept import kept
from bench.networks import mnist, trained
from bench.result import CACHE, row
from cortado.engine.compress import compress
from cortado.engine.recipe import read_recipe
from cortado.file.artifact import encode
from cortado.machine import processor_name
from cortado.nets.bi_real_resnet import bi_real_resnet_20
from cortado.nets.mlp import mlp_1024_signed
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.network.profile.profile import profile
from cortado.report.report import Report
from cortado.task.task import Task
from cortado.tasks import cifar10

TRAINED_ON = "trained on "
RECIPES = Path(__file__).parents[1] / "recipes"
ORIGINAL: dict[str, Callable[[], tuple[nn.Module, Task]]] = {
    "lenet_300_100": lambda: trained("LeNet-300-100", 0),
    "lenet_5": lambda: trained("LeNet-5", 0),
    "mlp_1024": lambda: trained("MLP-1024", 0),
    "vgg_16_cifar": lambda: (half_vgg(), cifar10.task()),
    "mlp_1024_signed": lambda: (fresh(mlp_1024_signed), mnist(0)),
    "bi_real_resnet_20": lambda: (fresh(bi_real_resnet_20), cifar10.task()),
    "resnet_20": lambda: (resnet_20(weights=True).eval(), cifar10.task()),
    "resnet_56": lambda: (resnet_56(weights=True).eval(), cifar10.task()),
}
"""For each network that a recipe names: the trained one (a fresh one, where all begins again), and its task."""
SAYS = {"vgg_16_cifar": "half-width VGG-16"}


def fresh(make: Callable[[], nn.Module]) -> nn.Module:
    """A network for signs with the fresh weights of seed 0: there is no pretrained one, and none is wanted."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return make().eval()


def settings(name: str) -> dict[str, Any]:
    return read_recipe(RECIPES / f"{name}.yaml").as_data()


def piece(name: str, seed: int = 0) -> dict[str, Any]:
    """One recipe on its network."""
    mark = mark_of(name, seed)
    return kept(f"recipe_runs/{mark}", settings(name)["stages"], lambda: run_now(name, seed))


def mark_of(name: str, seed: int) -> str:
    return f"{name}@{seed}" if seed else name


def seeds_before(name: str) -> list[int]:
    """The seeds that a recipe was run with, as it stands now or as it stood."""
    return [seed for seed in range(10) if any((CACHE / "recipe_runs").glob(f"{mark_of(name, seed)}_*.json"))]


def made_before(name: str) -> bool:
    return 0 in seeds_before(name)


def run_now(name: str, seed: int) -> dict[str, Any]:
    recipe = read_recipe(RECIPES / f"{name}.yaml")
    network, task = ORIGINAL[str(recipe.network)]()
    task = replace(task, seed=seed)
    small, report = compress(network, task, recipe, folder=CACHE / "recipe_runs" / mark_of(name, seed), resume=True)
    before, after = (profile(one, task.example).total("multiply_adds").value for one in (network, small))
    floats = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    compared = report.test
    return {
        "network": SAYS.get(str(recipe.network), str(recipe.network)),
        "original": compared.original,
        "score": compared.compressed,
        "low": compared.low,
        "high": compared.high,
        "samples": compared.samples,
        "multiply_adds": before / after,
        "file": len(encode(small, network)),
        "smaller": floats / len(encode(small, network)),
        "nonzero": report.stages[-1].nonzero,
        "minutes": sum(stage.seconds for stage in report.stages) / 60,
        "validation": report.stages[-1].score,
        "trained_on": trained_on(report),
    }


def trained_on(report: Report) -> str:
    """The GPU that a stage was trained on, which a run that goes on elsewhere remembers; else this processor."""
    notes = [note for stage in report.stages for note in stage.notes if note.startswith(TRAINED_ON)]
    return notes[0].removeprefix(TRAINED_ON) if notes else processor_name()


def rows_of(name: str, found: dict[str, Any], bar: float | None = None) -> list[dict[str, Any]]:
    """Points lost, with the most there may be as `bar`; times fewer multiply-adds; bytes."""
    what = f"{name}, {found['network']}"
    lost = found["original"] - found["score"]
    interval = "" if found["low"] is None else f", 95 % interval {-found['high']:.2f} to {-found['low']:.2f}, paired"
    shares = {key: found[key] for key in ("multiply_adds", "smaller", "nonzero", "minutes", "trained_on")}
    return [
        row(
            f"{what}: points lost ({found['samples']} images{interval})",
            lost,
            "points",
            bar,
            score=found["score"],
            **shares,
        ),
        row(f"{what}: times fewer multiply-adds", found["multiply_adds"], "x", better="higher"),
        row(f"{what}: file", found["file"], "B"),
    ]


def barred(bars: dict[str, float]) -> list[dict[str, Any]]:
    """The rows of every recipe that was run before: the mean over its seeds against what it may lose, then each seed."""
    rows = []
    for name, bar in bars.items():
        found = {seed: piece(name, seed) for seed in seeds_before(name)}
        if len(found) > 1:
            lost = [one["original"] - one["score"] for one in found.values()]
            says = f"{name}: points lost, mean of seeds {', '.join(map(str, found))}"
            rows.append(row(says, sum(lost) / len(lost), "points", bar, each=lost))
        for seed, one in found.items():
            rows += rows_of(mark_of(name, seed), one, bar if len(found) == 1 else None)
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    for given in sys.argv[1:]:
        recipe_name, _, number = given.partition("@")
        print(given, piece(recipe_name, int(number or 0)), flush=True)
