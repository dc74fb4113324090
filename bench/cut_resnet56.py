"""ResNet-56, pretrained on CIFAR-10, with 2.1 and 2.6 times fewer multiply-adds, and its time in two runtimes.

    python -m bench.cut_resnet56 2.1          one point, kept under bench/cache
    python -m bench cut_resnet56              both points (some that are not kept yet take an hour each), then the times

The test is on the 1,000 lossless test images that are at hand, used once for each point.
"""

import dataclasses
import sys
from typing import Any

import torch

from bench.kept import kept
from bench.result import CACHE, row
from cortado.engine.compress import compress
from cortado.engine.recipe import Recipe, read_recipe
from cortado.file.artifact import load, save
from cortado.nets.resnet import resnet_56
from cortado.network.profile.profile import profile
from cortado.tasks import cifar10

SEEDS = [0]
POINTS = {2.1: 0.8, 2.6: 1.2}
"""Times fewer multiply-adds: most points that may be lost."""


def run() -> list[dict[str, Any]]:
    """Both points and their times."""
    rows = []
    for times, most in POINTS.items():
        found = point(times)
        name = f"{times:g} times fewer multiply-adds asked"
        rows.append(row(f"{name}: times fewer", found["times_fewer"], "x", times, "higher"))
        rows.append(row(f"{name}: points lost ({found['interval']})", found["lost"], "points", most))
        rows.append(row(f"{name}: test accuracy", found["accuracy"], "%", better="higher"))
        rows.append(row(f"{name}: plain test accuracy", found["plain_accuracy"], "%", better="higher"))
        rows.append(row(f"{name}: choice accuracy before recovery", found["cut_choice"], "%", better="higher"))
        rows.append(row(f"{name}: parameters left", found["parameters_left"], "%"))
        minutes = sum(seconds for _, _, seconds in found["stages"]) / 60
        rows.append(row(f"{name}: cut and recovery, one thread of a shared processor", minutes, "min", 180))
        from bench.timed import times_in_runtimes

        original = resnet_56(weights=True).eval()
        rows += times_in_runtimes(load(file_of(times), original), original, torch.zeros(1, 3, 32, 32), name, (1, 32))
    return rows


def file_of(times: float) -> Any:
    return CACHE / "cut_resnet56" / f"{times:g}.cortado"


def point(times: float) -> dict[str, Any]:
    """One network, cut and recovered."""
    recipe = read_recipe("recipes/channels_resnet_56.yaml")
    cut, *rest = recipe.stages
    recipe = dataclasses.replace(recipe, stages=(dataclasses.replace(cut, keep=round(1 / times, 4)), *rest))
    return kept(f"cut_resnet56/{times:g}", recipe.as_data(), lambda: fresh(times, recipe))


def fresh(times: float, recipe: Recipe) -> dict[str, Any]:
    network, task = resnet_56(weights=True), cifar10.task()
    small, report = compress(network, task, recipe, folder=CACHE / "cut_resnet56" / f"{times:g}", resume=True)
    save(small, file_of(times), network)
    before, after = (profile(one, torch.zeros(1, 3, 32, 32)).total("multiply_adds").value for one in (network, small))
    left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in network.parameters())
    compared = report.test
    interval = "unknown" if compared.low is None else f"95 % interval {-compared.high:.2f} to {-compared.low:.2f}"
    return {
        "times_fewer": before / after,
        "lost": -compared.difference,
        "interval": f"{interval}, paired, {compared.samples} images",
        "accuracy": compared.compressed,
        "plain_accuracy": compared.original,
        "cut_choice": report.stages[0].score,
        "parameters_left": 100 * left,
        "stages": [(stage.name, stage.score, stage.seconds) for stage in report.stages],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(sys.argv[1:], point(float(sys.argv[1])))
