"""Fewest bytes for the LeNets on MNIST: three seeds each, every byte of the file counted.

`python -m bench lenet_bytes --seeds 0,1,2`; single networks and seeds can be run beforehand, in parallel, by
`python -m bench.lenet_bytes lenet_5 0`: finished ones are kept in bench/cache.
"""

import dataclasses
import sys
from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch

from bench.kept import kept
from bench.result import CACHE, Clock, row
from cortado.engine.compress import compress
from cortado.engine.recipe import Recipe, read_recipe
from cortado.file.artifact import save
from cortado.nets.catalog import by_name
from cortado.tasks import mnist
from cortado.training.loop import Training, train

SEEDS = [0, 1, 2]
# Recipe; bars for bytes and test error in per cent; the further aim, if there is one; the best published point near it.
POINTS = {
    "fewest_bytes_lenet_5": ((2300, 0.85), (2500, 0.69), "3,030 B at 0.69 % (MIRACLE, 2019)"),
    "fewest_bytes_lenet_300_100": ((3500, 1.50), None, "8,560 B at 1.9 % (Oktay et al., 2020)"),
}


def run(seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """All points, all seeds."""
    rows = []
    for name, (bar, target, source) in POINTS.items():
        found = [one(name, seed) for seed in seeds]
        says = f"{name.removeprefix('fewest_bytes_')}, mean of seeds {', '.join(map(str, seeds))}"
        size_bytes, error = mean(f["size_bytes"] for f in found), mean(f["error"] for f in found)
        for kind, limits in (("bar", bar), ("aim", target)):
            if limits is not None:
                rows.append(row(f"{says}: file ({kind})", size_bytes, "B", limits[0], source_value=source))
                rows.append(row(f"{says}: test error ({kind})", error, "%", limits[1], source_value=source))
        rows.append(row(f"{says}: longest seed", max(f["minutes"] for f in found), "min", 45))
        rows.append(row(f"{says}: plain test error", mean(f["plain_error"] for f in found), "%"))
        for seed, f in zip(seeds, found, strict=True):
            rows.append(row(f"  seed {seed}: file ({f['nonzeros']} nonzeros)", f["size_bytes"], "B"))
            rows.append(row(f"  seed {seed}: test error (choice {f['choice_error']:.2f} %)", f["error"], "%"))
    return rows


def one(name: str, seed: int) -> dict[str, Any]:
    """One recipe, one seed; its settings are the recipe as written."""
    recipe = read_recipe(f"recipes/{name}.yaml")
    return kept(f"lenet_bytes/{name}_{seed}", recipe.as_data(), lambda: fresh(name, recipe, seed))


def fresh(name: str, recipe: Recipe, seed: int) -> dict[str, Any]:
    clock = Clock()
    plain_task = mnist.task(seed=seed)
    torch.manual_seed(seed)
    network = by_name(str(recipe.network))
    train(network, plain_task, Training(epochs=8, lr=1e-3), seed=seed)
    task = dataclasses.replace(mnist.task(seed=seed, **recipe.task["mnist"]))
    small, report = compress(network, task, recipe)
    folder = CACHE / "lenet_bytes"
    folder.mkdir(parents=True, exist_ok=True)
    size_bytes = save(small, folder / f"{name}_{seed}.cortado", network)
    return {
        "size_bytes": size_bytes,
        "error": 100 - report.test.compressed,
        "plain_error": 100 - report.test.original,
        "choice_error": 100 - report.stages[-1].score,
        "nonzeros": sum(layer.nonzeros for layer in report.layers),
        "minutes": clock.minutes,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(sys.argv[1:], one(sys.argv[1], int(sys.argv[2])))
