"""CLIP-Q (Tung and Mori, 2018) against pruning first and rounding afterwards, at equal bytes of the file and equal epochs.

CLIP-Q prunes and rounds at every step of one training; its rivals prune, train, share by k-means or round to an even
grid, and train again, for as many epochs together. How much a rival keeps is searched until its file is as large as
CLIP-Q's within 2 %. Each arm learns at two rates; rate and rival are chosen on the validation data. The test data are
used once for the original network, CLIP-Q and the better rival.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import nn

from bench.after import after
from bench.kept import kept
from bench.networks import trained
from bench.result import Clock, row
from cortado.file.artifact import encode
from cortado.nets.digits import digits_net
from cortado.report.report import paired_interval
from cortado.task.measure import mean_score, scores
from cortado.task.task import Task
from cortado.tasks import digits
from cortado.training.loop import Training, train

NEAR = 0.02
RIVALS = {"k-means": "share/kmeans bits=3", "even grid": "quantize/weights bits=4 per=tensor"}


@dataclass(frozen=True)
class Point:
    """One network, how far CLIP-Q goes, and the training of all."""

    make: Callable[[int], tuple[nn.Module, Task]]
    seeds: tuple[int, ...]
    zeros: float
    bits: int
    epochs: int
    batch: int
    rates: tuple[float, ...]


def digits_plain(seed: int) -> tuple[nn.Module, Task]:
    """digits_net trained here, and its task."""
    task = digits.task(seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = digits_net()
    train(network, task, Training(epochs=15, lr=2e-3, batch=64), seed=seed)
    return network.eval(), task


POINTS = {
    "LeNet-300-100, MNIST": Point(partial(trained, "LeNet-300-100"), (0,), 0.95, 3, 4, 512, (1e-3, 3e-3)),
    "digits_net, digits": Point(digits_plain, (0, 1, 2), 0.9, 3, 20, 64, (1e-3, 3e-3)),
}


def run() -> list[dict[str, Any]]:
    """Both networks."""
    return [one for name, point in POINTS.items() for one in rows_of(name, point)]


def rows_of(name: str, point: Point) -> list[dict[str, Any]]:
    """Means over the seeds, the one bar first, then seed by seed."""
    settings = [point.zeros, point.bits, point.epochs, point.batch, point.rates, RIVALS]
    mark = "".join(letter for letter in name.lower() if letter.isalnum())
    found = [kept(f"clipq_{mark}_{seed}", settings, partial(one_seed, point, seed)) for seed in point.seeds]
    seeds = f"{name}, {point.epochs} epochs, " + (f"mean of {len(found)} seeds" if len(found) > 1 else "one seed")
    rows = [
        row(f"{seeds}: CLIP-Q's points lost less its rival's", mean(f["behind"] for f in found), "points", 0.0),
        row(f"{seeds}: points CLIP-Q lost", mean(f["clip"]["lost"] for f in found), "points"),
        row(f"{seeds}: points the rival lost", mean(f["rival"]["lost"] for f in found), "points"),
        row(f"{seeds}: original score", mean(f["original"] for f in found), "%"),
    ]
    for seed, f in zip(point.seeds, found, strict=True):
        what, rival = f"  {name}, seed {seed}", f["rival"]
        interval = f"95 % interval {f['low']:.2f} to {f['high']:.2f}, paired, {f['samples']} images"
        rows.append(row(f"{what}: points lost less the rival's ({interval})", f["behind"], "points"))
        rows.append(row(f"{what}: CLIP-Q's file (rate {f['clip']['rate']:g})", f["clip"]["bytes"], "B", **f["clip"]))
        says = f"{what}: file of the rival, {rival['way']} (keep {rival['keep']:.3f}, rate {rival['rate']:g})"
        rows.append(row(says, rival["bytes"], "B", **rival))
        far = 100 * abs(rival["bytes"] / f["clip"]["bytes"] - 1)
        rows.append(row(f"{what}: sizes of the files apart", far, "%", 100 * NEAR, minutes=f["minutes"]))
    return rows


def one_seed(point: Point, seed: int) -> dict[str, Any]:
    """Everything for one seed; the test data come in at its end."""
    clock, (original, task) = Clock(), point.make(seed)
    task = replace(task, batch=point.batch)
    clip = best(clipped(original, task, point, rate) for rate in point.rates)
    rivals = [matched(original, task, point, clip["bytes"], way, rate) for way in RIVALS for rate in point.rates]
    rival = best(iter(rivals))
    before, mine, theirs = (
        scores(net, task.test, task.metric) for net in (original, clip["network"], rival["network"])
    )
    compared = paired_interval(theirs, mine, task.metric.scale)
    lost = [paired_interval(before, after, task.metric.scale) for after in (mine, theirs)]
    assert compared.low is not None and compared.high is not None
    return {
        "original": lost[0].original,
        "clip": describe(clip, -lost[0].difference),
        "rival": describe(rival, -lost[1].difference),
        "others": [{key: one[key] for key in ("way", "rate", "keep", "bytes", "validation")} for one in rivals],
        "behind": -compared.difference,
        "low": -compared.high,
        "high": -compared.low,
        "samples": compared.samples,
        "minutes": clock.minutes,
    }


def best(found: Any) -> dict[str, Any]:
    """The one with the highest score on the validation data."""
    return dict(max(found, key=lambda one: one["validation"]))


def describe(one: dict[str, Any], lost: float) -> dict[str, Any]:
    """What is written down of an arm."""
    return {**{key: value for key, value in one.items() if key != "network"}, "lost": lost}


def facts(network: nn.Module, original: nn.Module, task: Task, way: str, rate: float, keep: float) -> dict[str, Any]:
    size, validation = len(encode(network, original)), mean_score(network, task.validation, task.metric)
    return {"network": network, "way": way, "lr": rate, "keep": keep, "bytes": size, "validation": validation}


def clipped(original: nn.Module, task: Task, point: Point, rate: float) -> dict[str, Any]:
    """CLIP-Q."""
    recipe = (
        f"quantize/clip bits={point.bits} zeros={point.zeros} | finetune epochs={point.epochs} rate={rate} precision=float32 "
        "| finalize"
    )
    return facts(after(original, task, recipe), original, task, "CLIP-Q", rate, 1 - point.zeros)


def matched(original: nn.Module, task: Task, point: Point, size: int, way: str, rate: float) -> dict[str, Any]:
    """A rival whose file has so many bytes within 2 %, or the last of four that were tried."""
    finetune, target, made = f"finetune epochs={point.epochs / 2} rate={rate} precision=float32", float(size), {}
    for _ in range(4):
        keep = share_for(original, task, RIVALS[way], target)
        recipe = f"prune/weights keep={keep} | {finetune} | {RIVALS[way]} | {finetune}"
        made = facts(after(original, task, recipe), original, task, way, rate, keep)
        if abs(made["bytes"] / size - 1) <= NEAR:
            break
        target *= size / made["bytes"]
    return made


def share_for(original: nn.Module, task: Task, rounding: str, size: float) -> float:
    """How much to keep for a file of this size, if nothing were trained."""
    low, high = 0.002, 0.6
    for _ in range(9):
        middle = (low + high) / 2
        untrained = after(original, task, f"prune/weights keep={middle} | {rounding}")
        low, high = (low, middle) if len(encode(untrained, original)) > size else (middle, high)
    return (low + high) / 2
