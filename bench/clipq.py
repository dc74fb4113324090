"""CLIP-Q (Tung and Mori, 2018) against pruning first and rounding afterwards, at equal bytes of the file and equal epochs.

CLIP-Q prunes and rounds at every step of one training; its rivals prune, train, share by k-means or round to an even
grid, and train again, for as many epochs together. How much a rival keeps is searched until its file is as large as
CLIP-Q's within 2 %. Each arm learns at two rates; rate and rival are chosen on the choice data. The verdict data are
used once for the plain network, CLIP-Q and the better rival.
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
from cortado.measure import mean_score, scores
from cortado.nets.digits import digits_net
from cortado.report import paired_interval
from cortado.task import Task
from cortado.tasks import digits
from cortado.tune import Plan, train

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
    train(network, task, Plan(epochs=15, rate=2e-3, batch=64, seed=seed))
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
        row(f"{seeds}: plain score", mean(f["plain"] for f in found), "%"),
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
    """Everything for one seed; the verdict data come in at its end."""
    clock, (plain, task) = Clock(), point.make(seed)
    task = replace(task, batch=point.batch)
    clip = best(clipped(plain, task, point, rate) for rate in point.rates)
    rivals = [matched(plain, task, point, clip["bytes"], way, rate) for way in RIVALS for rate in point.rates]
    rival = best(iter(rivals))
    before, mine, theirs = (scores(net, task.verdict, task.score) for net in (plain, clip["network"], rival["network"]))
    compared = paired_interval(theirs, mine, task.score.scale)
    lost = [paired_interval(before, after, task.score.scale) for after in (mine, theirs)]
    assert compared.low is not None and compared.high is not None
    return {
        "plain": lost[0].plain,
        "clip": told(clip, -lost[0].difference),
        "rival": told(rival, -lost[1].difference),
        "others": [{key: one[key] for key in ("way", "rate", "keep", "bytes", "choice")} for one in rivals],
        "behind": -compared.difference,
        "low": -compared.high,
        "high": -compared.low,
        "samples": compared.samples,
        "minutes": clock.minutes,
    }


def best(found: Any) -> dict[str, Any]:
    """The one with the highest score on the choice data."""
    return dict(max(found, key=lambda one: one["choice"]))


def told(one: dict[str, Any], lost: float) -> dict[str, Any]:
    """What is written down of an arm."""
    return {**{key: value for key, value in one.items() if key != "network"}, "lost": lost}


def facts(network: nn.Module, plain: nn.Module, task: Task, way: str, rate: float, keep: float) -> dict[str, Any]:
    size, choice = len(encode(network, plain)), mean_score(network, task.choice, task.score)
    return {"network": network, "way": way, "rate": rate, "keep": keep, "bytes": size, "choice": choice}


def clipped(plain: nn.Module, task: Task, point: Point, rate: float) -> dict[str, Any]:
    """CLIP-Q."""
    recipe = (
        f"quantize/clip bits={point.bits} zeros={point.zeros} | tune epochs={point.epochs} rate={rate} precision=float32 "
        "| settle"
    )
    return facts(after(plain, task, recipe), plain, task, "CLIP-Q", rate, 1 - point.zeros)


def matched(plain: nn.Module, task: Task, point: Point, size: int, way: str, rate: float) -> dict[str, Any]:
    """A rival whose file has so many bytes within 2 %, or the last of four that were tried."""
    tune, aim, made = f"tune epochs={point.epochs / 2} rate={rate} precision=float32", float(size), {}
    for _ in range(4):
        keep = share_for(plain, task, RIVALS[way], aim)
        recipe = f"prune/weights keep={keep} | {tune} | {RIVALS[way]} | {tune}"
        made = facts(after(plain, task, recipe), plain, task, way, rate, keep)
        if abs(made["bytes"] / size - 1) <= NEAR:
            break
        aim *= size / made["bytes"]
    return made


def share_for(plain: nn.Module, task: Task, rounding: str, size: float) -> float:
    """How much to keep for a file of this size, if nothing were trained."""
    low, high = 0.002, 0.6
    for _ in range(9):
        middle = (low + high) / 2
        untrained = after(plain, task, f"prune/weights keep={middle} | {rounding}")
        low, high = (low, middle) if len(encode(untrained, plain)) > size else (middle, high)
    return (low + high) / 2
