"""Recipes that change shapes, as they stand in recipes/: score, multiply-adds and bytes before and after.

    python -m bench.shape_recipes RECIPE ...    these, each kept under bench/cache; a killed one goes on at its last stage
    python -m bench shape_recipes               the table of all that were run so

VGG-16 is the half-width one that is trained here (half_vgg.py), as no published weights are at hand. The verdict data
are used once for each recipe: the recipes were written before, and nothing is chosen by what comes out.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.half_vgg import half_vgg
from bench.kept import kept
from bench.networks import trained
from bench.result import CACHE, Clock, row
from cortado.compress import compress
from cortado.file.artifact import encode
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.network.profile import profile
from cortado.recipe import read
from cortado.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
RECIPES = Path(__file__).parents[1] / "recipes"
PLAIN: dict[str, Callable[[], tuple[nn.Module, Task]]] = {
    "lenet_300_100": lambda: trained("LeNet-300-100", 0),
    "lenet_5": lambda: trained("LeNet-5", 0),
    "vgg_16_cifar": lambda: (half_vgg(), cifar10.task()),
    "resnet_20": lambda: (resnet_20(weights=True).eval(), cifar10.task()),
    "resnet_56": lambda: (resnet_56(weights=True).eval(), cifar10.task()),
}
"""For each network that a recipe names: the trained one, and its task."""
SAYS = {"vgg_16_cifar": "half-width VGG-16"}
SHORT = (
    "svd_lenet_300_100",
    "predicting_parameters_lenet_300_100",
    "group_wise_brain_damage_lenet_5",
    "response_vgg_16",
    "nonlinear_vgg_16",
    "jaderberg_scheme_1_vgg_16",
    "jaderberg_scheme_2_vgg_16",
)
LONG = (
    "cp_vgg_16",
    "tucker_vgg_16",
    "unstructured_resnet_20",
    "structured_resnet_20",
    "low_rank_training_resnet_20",
    "structured_sparsity_resnet_20",
    "channels_reconstruction_resnet_56",
    "from_scratch_resnet_56",
    "network_trimming_vgg_16",
    "network_slimming_vgg_16",
    "channels_magnitude_vgg_16",
)
"""Between a quarter of an hour and four hours each on one core."""


def run() -> list[dict[str, Any]]:
    """Every recipe that was run before; what is asked for above takes minutes to hours each."""
    return [one for name in (*SHORT, *LONG) if made_before(name) for one in rows_of(name, piece(name))]


def settings(name: str) -> dict[str, Any]:
    return read(RECIPES / f"{name}.yaml").as_data()


def piece(name: str) -> dict[str, Any]:
    """One recipe on its network."""
    return kept(f"shape_recipes/{name}", settings(name)["stages"], lambda: fresh(name))


def made_before(name: str) -> bool:
    return any((CACHE / "shape_recipes").glob(f"{name}_*.json"))


def fresh(name: str) -> dict[str, Any]:
    clock, recipe = Clock(), read(RECIPES / f"{name}.yaml")
    network, task = PLAIN[str(recipe.network)]()
    small, report = compress(network, task, recipe, folder=CACHE / "shape_recipes" / name, resume=True)
    before, after = (profile(one, task.example).total("multiply_adds").value for one in (network, small))
    floats = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    compared = report.verdict
    return {
        "network": SAYS.get(str(recipe.network), str(recipe.network)),
        "plain": compared.plain,
        "score": compared.compressed,
        "low": compared.low,
        "high": compared.high,
        "samples": compared.samples,
        "multiply_adds": before / after,
        "file": len(encode(small, network)),
        "smaller": floats / len(encode(small, network)),
        "nonzero": report.stages[-1].nonzero,
        "minutes": clock.minutes,
    }


def rows_of(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    what = f"{name}, {found['network']}"
    lost = found["plain"] - found["score"]
    interval = "" if found["low"] is None else f", 95 % interval {-found['high']:.2f} to {-found['low']:.2f}, paired"
    shares = {key: found[key] for key in ("multiply_adds", "smaller", "nonzero", "minutes")}
    return [
        row(
            f"{what}: points lost ({found['samples']} images{interval})", lost, "points", score=found["score"], **shares
        ),
        row(f"{what}: times fewer multiply-adds", found["multiply_adds"], "x", better="higher"),
        row(f"{what}: file", found["file"], "B"),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for given in sys.argv[1:]:
        print(given, piece(given), flush=True)
