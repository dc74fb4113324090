"""ResNet-20, pretrained on CIFAR-10, cut to half its multiply-adds, then 10 epochs of recovery: three arms, three seeds.

    python -m bench.cut_resnet20 ARM SEED     one arm with one seed: ours, rival or scratch; kept under bench/cache
    python -m bench cut_resnet20              all that is not kept yet, then the table and the result

`rival` is Torch-Pruning's group-norm pruner, set up in several ways; `scratch` is our cut shape with fresh weights. All
arms train by the same plan, with the original network as teacher. Where an arm has several ways, each is tried once with a
fifth of the epochs, and the best on the validation data is the arm. The test data are used once, on what was chosen.

The original network was trained by others on all 50,000 training images, so that scores on the validation data (the last
5,000 of them) are too good for whatever inherits its weights: they serve to choose within an arm, never between arms.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.kept import kept
from bench.result import CACHE, row
from bench.rivals.group_norm import PtqConfig, Regularised, cut_until
from cortado.methods.match_moments import MatchMoments
from cortado.methods.prune.channels import PruneChannels
from cortado.nets.resnet import CifarResNet, resnet_20
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.task.measure import mean_score, scores
from cortado.task.task import Data, Task
from cortado.tasks import cifar10
from cortado.training.loop import Training, train
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.task import TaskLoss

SEEDS = [0, 1, 2]
TIMES = 2.0
PLAN: dict[str, Any] = {
    "epochs": 10,
    "lr": 0.05,
    "optimizer": "sgd",
    "decay": 2e-4,
    "precision": "float32",
}
SPARSE = {"lr": 0.01, "precision": "float32"}
"""The rival's sparse learning: the rate of its authors' CIFAR runs, cross-entropy, no weight decay."""
PILOT = 0.2
"""Share of the epochs with which ways are tried."""
RIVALS = {
    "across layers": PtqConfig(),
    "in each layer": PtqConfig(across=False),
    "two fifths of the epochs sparse learning, across layers": PtqConfig(normalizer="max", learn=0.4),
}
"""Streams are left alone in each: what `Way(streams=True)` cuts there is another network (see cut_by_rival)."""
SCRATCH_RATES = (0.1,)
BATCH = 128


def original() -> CifarResNet:
    """The published network, in eval mode and in the memory layout in which it trains fastest."""
    return resnet_20(weights=True).eval().to(memory_format=torch.channels_last)


def multiply_adds(network: nn.Module) -> float:
    """Of one sample."""
    return profile(network, torch.zeros(1, 3, 32, 32)).total("multiply_adds").value


HALVES = (TaskLoss(0.5), Logits(0.5, 4.0))
"""Labels and the original network as teacher, at equal weight."""


def plan(**changed: Any) -> Training:
    """The plan of every arm, with what a way or a pilot changes."""
    return Training(**{**PLAN, **changed})


def task_of(seed: int, images: int | None) -> Task:
    """CIFAR-10; `images` leaves only so many of each part, to see whether an arm runs."""
    task = cifar10.task(seed)
    if images is None:
        return task
    parts: dict[str, Data] = {part: getattr(task, part).first(images) for part in ("train", "validation", "test")}
    return dataclasses.replace(task, **parts)


def streams(network: CifarResNet) -> list[nn.Module]:
    """The makers of what runs through the shortcuts."""
    blocks = [block for layer in (network.layer1, network.layer2, network.layer3) for block in layer]
    return [network.conv1, *(block.conv2 for block in blocks)]


def cut_by_rival(way: PtqConfig, task: Task, seed: int, epochs: float) -> nn.Module:
    """The rival's cut, after its sparse learning if it has one.

    Its dependency graph takes the zeros padded into the shortcuts for nothing: channel i before the padding is tied to
    channel i after it, where it is i + 8 or i + 16. What it cuts in the streams runs, but is another network; so all
    ways but one leave the streams alone.
    """
    network = original()
    torch.manual_seed(seed)
    ignored = [network.linear, *([] if way.streams else streams(network))]
    pruner = way.pruner(network, task.example, ignored)
    if way.learn:
        sparse = Training(
            **SPARSE,
            epochs=way.learn * epochs,
            optimizer=lambda groups: Regularised(groups, SPARSE["lr"], pruner, network),
        )
        train(network, task, sparse, seed=seed, label="sparse learning")
    most = multiply_adds(network) / TIMES
    cut_until(pruner, lambda: multiply_adds(network) <= most)
    return network


def cut_by_us(task: Task, seed: int) -> nn.Module:
    """Our cut, before recovery: channels by the curvature of their gates, across layers, readers refitted, moments matched."""
    network, before = original(), original()
    view = View(network, before, task.example, reference=before)
    task = dataclasses.replace(task, seed=seed)
    PruneChannels(
        keep=1 / TIMES, of="multiply_adds", by="curvature", across=True, least=0.1, multiple=1, reconstruct=True
    ).apply(view, task)
    MatchMoments().apply(view, task)
    return network


def fresh(shape: nn.Module, seed: int) -> nn.Module:
    """The same shape with the weights its layers would start from."""
    torch.manual_seed(seed)
    for layer in shape.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            layer.reset_parameters()
    return shape


def ways_of(arm: str) -> list[str]:
    """What an arm can try."""
    rates = [f"rate {rate:g}" for rate in SCRATCH_RATES]
    return {"ours": ["ours"], "rival": list(RIVALS), "scratch": rates}[arm]


def start(arm: str, way: str, task: Task, seed: int, epochs: float) -> tuple[nn.Module, Training]:
    """The network an arm recovers, and its plan."""
    if arm == "rival":
        chosen = RIVALS[way]
        return cut_by_rival(chosen, task, seed, epochs), plan(epochs=(1 - chosen.learn) * epochs)
    if arm == "scratch":
        return fresh(cut_by_us(task, seed), seed), plan(epochs=epochs, lr=float(way.split()[1]))
    return cut_by_us(task, seed), plan(epochs=epochs)


def candidate(arm: str, way: str, seed: int, images: int | None = None, share: float = 1.0) -> dict[str, Any]:
    """Cut and recovered: what it costs, its choice scores, and where the network is kept."""
    epochs = PLAN["epochs"] * share
    says = repr(RIVALS.get(way, way))
    settings = {"plan": PLAN, "sparse": SPARSE, "way": says, "times": TIMES, "images": images, "epochs": epochs}
    name = f"cut_resnet20_{arm}_{way}_{seed}".replace(" ", "_").replace(",", "")

    def make() -> dict[str, Any]:
        task = task_of(seed, images)
        network, recovery = start(arm, way, task, seed, epochs)
        before, costs = mean_score(network, task.validation, task.metric), multiply_adds(network)
        train(network, task, recovery, objectives=HALVES, teachers=[original()], seed=seed, label="recovery")
        path = CACHE / "cut_resnet20" / f"{name}_{epochs:g}_{images}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network, path)
        return {
            "multiply_adds": costs,
            "parameters": sum(p.numel() for p in network.parameters()),
            "widths": [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)],
            "choice_before": before,
            "validation": mean_score(network, task.validation, task.metric),
            "file": path.name,
        }

    return kept(name, settings, make)


def pilot(arm: str, way: str, images: int | None = None) -> dict[str, Any]:
    """One way of an arm, tried in short."""
    return candidate(arm, way, 0, images, PILOT)


def chosen_way(arm: str, images: int | None = None) -> str:
    """The way with the best choice score in short."""
    candidate_recipes = ways_of(arm)
    return (
        max(candidate_recipes, key=lambda way: pilot(arm, way, images)["validation"])
        if len(candidate_recipes) > 1
        else candidate_recipes[0]
    )


def load(found: dict[str, Any]) -> nn.Module:
    """The network of a candidate."""
    return torch.load(Path(CACHE / "cut_resnet20" / found["file"]), weights_only=False).eval()


def lost(found: dict[str, Any], task: Task) -> float:
    """Points of test accuracy lost against the original network."""
    pairs = scores(original(), task.test, task.metric) - scores(load(found), task.test, task.metric)
    return float(pairs.double().mean()) * task.metric.scale


def run(seeds: list[int]) -> list[dict]:
    """Points lost by each arm, means over seeds; and what was not chosen."""
    task, whole = cifar10.task(), multiply_adds(original())
    rows, means = [], {}
    for arm in ("ours", "rival", "scratch"):
        way = chosen_way(arm)
        found = [candidate(arm, way, seed) for seed in seeds]
        each = [lost(one, task) for one in found]
        means[arm] = sum(each) / len(each)
        rows += [
            row(f"{arm} ({way}), seed {seed}: points lost", loss, "points", times=whole / one["multiply_adds"])
            for seed, one, loss in zip(seeds, found, each, strict=True)
        ]
        rows += [
            row(f"{arm} in short, {other}: choice accuracy", pilot(arm, other)["validation"], "%", chosen=other == way)
            for other in ways_of(arm)
            if len(ways_of(arm)) > 1
        ]
        before, after = (sum(one[key] for one in found) / len(found) for key in ("choice_before", "validation"))
        rows.append(row(f"{arm}: choice accuracy before recovery, mean over seeds", before, "%", better="higher"))
        rows.append(row(f"{arm}: choice accuracy, mean over seeds", after, "%", better="higher"))
        times = min(whole / one["multiply_adds"] for one in found)
        rows.append(row(f"{arm}: times fewer multiply-adds, fewest of the seeds", times, "x", TIMES, "higher"))
    rows.append(row("ours: points lost, mean over seeds", means["ours"], "points", 1.5))
    # Better is at least one image of all that the seeds were judged on.
    least = task.metric.scale / (len(task.test) * len(seeds))
    for arm in ("rival", "scratch"):
        better = means[arm] - means["ours"]
        rows.append(row(f"ours: points less lost than {arm}, mean over seeds", better, "points", least, "higher"))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.cut_resnet20", description=__doc__)
    parser.add_argument("arm", choices=("ours", "rival", "scratch"))
    parser.add_argument("seed", type=int)
    parser.add_argument("--images", type=int, help="train on so few, to see whether it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = chosen_way(options.arm, options.images)
    print(chosen, candidate(options.arm, chosen, options.seed, options.images))
