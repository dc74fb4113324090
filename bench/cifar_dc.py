"""ResNet-20 and ResNet-56 on CIFAR-10, from pretrained weights: files at least 20 times smaller than fp32.

The test is on the lossless test images that are at hand; choices were made on 5,000 held-out training images.
Single networks can be run beforehand by `python -m bench.cifar_dc fewest_bytes_resnet_56`; results are kept.
"""

import sys
from typing import Any

import torch

from bench.kept import kept
from bench.result import CACHE, Clock, row
from cortado.engine.compress import compress
from cortado.engine.recipe import Recipe, read_recipe
from cortado.file.artifact import save
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.tasks import cifar10

SEEDS = [0]
NETWORKS = {"resnet_20": resnet_20, "resnet_56": resnet_56}
POINTS = ("fewest_bytes_resnet_20", "fewest_bytes_resnet_56", "fewest_bytes_resnet_56_small")


def run() -> list[dict[str, Any]]:
    """All points that were run before, and the others now."""
    rows = []
    for name in POINTS:
        found = one(name)
        # The bars are for each network once; a further point of it is shown beside.
        barred = not name.endswith("_small")
        rows.append(
            row(f"{name}: times smaller than fp32", found["times_smaller"], "x", 20 if barred else None, "higher")
        )
        rows.append(row(f"{name}: points lost ({found['interval']})", found["lost"], "points", 0.5 if barred else None))
        rows.append(row(f"{name}: file", found["size_bytes"], "B"))
        rows.append(row(f"{name}: test accuracy", found["accuracy"], "%", better="higher"))
        rows.append(row(f"{name}: plain test accuracy", found["plain_accuracy"], "%", better="higher"))
        rows.append(row(f"{name}: training", found["minutes"], "min"))
    return rows


def one(name: str) -> dict[str, Any]:
    recipe = read_recipe(f"recipes/{name}.yaml")
    return kept(f"cifar_dc/{name}", recipe.as_data(), lambda: fresh(name, recipe))


def fresh(name: str, recipe: Recipe) -> dict[str, Any]:
    clock = Clock()
    network = NETWORKS[str(recipe.network)](weights=True)
    task = cifar10.task()
    small, report = compress(network, task, recipe, folder=CACHE / "cifar_dc" / name, resume=True)
    size_bytes = save(small, CACHE / "cifar_dc" / f"{name}.cortado", network)
    compared = report.test
    interval = "unknown" if compared.low is None else f"95 % interval {-compared.high:.2f} to {-compared.low:.2f}"
    return {
        "size_bytes": size_bytes,
        "times_smaller": report.original_bytes / size_bytes,
        "lost": -compared.difference,
        "interval": f"{interval}, paired, {compared.samples} images",
        "accuracy": compared.compressed,
        "plain_accuracy": compared.original,
        "stages": [(stage.name, stage.score, stage.size_bytes) for stage in report.stages],
        "minutes": clock.minutes,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(sys.argv[1:], one(sys.argv[1]))
