"""Optimal Brain Damage against magnitude: loss on training images against the share of weights removed, no retraining.

LeCun, Denker, Solla (1990) drop the weights of least h w^2 / 2, a few at a time, and find the loss to rise less than
when small weights go. Here on trained networks for MNIST: 10,000 training images give the loss, 512 others, held out,
the curvature, taken again at every share (magnitudes stay what they are). A point is a network, a seed, a way of
ranking (across layers, or in each layer) and a share kept; the bar is that OBD's loss is the lower one at each point
where either loss is under 1 nat. Points at which the two losses differ by less than a thousandth of a nat are told
apart: there nothing has been lost yet. The same with moments matched after each step, which is the package's way
after a lossy stage (biases follow in closed form, no weight is trained), is reported without a bar.
"""

import dataclasses

import torch
from torch import nn

from bench.networks import trained
from bench.result import row
from cortado.methods.match_moments import MatchMoments
from cortado.methods.prune.weights import PruneWeights
from cortado.network.view import View, working_copy
from cortado.running.call import call
from cortado.task.task import Data, Task

SEEDS = [0, 1, 2]
KEPT = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
NETWORKS = ("LeNet-300-100", "LeNet-5")
SEEDS_OF = {"LeNet-300-100": 3, "LeNet-5": 1}
CALIBRATION = 512
LIMIT_NATS, CLEAR_NATS = 1.0, 0.001
SHOWN = 0.2
LOSS_IMAGES = 10_000


def measured(network: nn.Module, data: Data, task: Task) -> tuple[float, float]:
    """The mean loss in nats and the error in %."""
    loss, right = 0.0, 0.0
    with torch.no_grad():
        for inputs, targets in data.batches(500):
            outputs = call(network, inputs)
            loss += float(task.loss(outputs, targets)) * len(targets)
            right += float(task.metric.each(outputs, targets).sum())
    return loss / len(data), 100 * (1 - right / len(data))


def prune(
    network: nn.Module, original: nn.Module, task: Task, by: str, keep: float, across: bool, matched: bool
) -> None:
    """Drop the weights of the lowest scores."""
    PruneWeights(keep=keep, by=by, across=across).apply(View(network, original, task.example), task)
    if matched:
        MatchMoments().apply(View(network, original, task.example), task)


Curve = dict[float, tuple[float, float]]
"""Share kept -> (loss in nats, error in %)."""


def curve(original: nn.Module, task: Task, by: str, across: bool, matched: bool) -> Curve:
    """Loss and error of one network while it loses its weights."""
    network, data, found = working_copy(original), task.train.first(LOSS_IMAGES), {}
    for keep in KEPT:
        prune(network, original, task, by, keep, across, matched)
        found[keep] = measured(network, data, task)
    return found


def compared(name: str, seed: int, across: bool, matched: bool) -> list[dict]:
    """How often OBD's loss is not the lower one; the first row holds (loss, error) of both at each share."""
    original, task = trained(name, seed)
    task = dataclasses.replace(task, calibration=task.validation.first(CALIBRATION))
    magnitude, curvature = (curve(original, task, by, across, matched) for by in ("magnitude", "curvature"))
    way = (
        f"{name}, seed {seed}, {'across layers' if across else 'in each layer'}{', moments matched' if matched else ''}"
    )
    both = [(curvature[keep][0], magnitude[keep][0]) for keep in KEPT]
    points = [ours - theirs for ours, theirs in both if min(ours, theirs) < LIMIT_NATS]
    lost, clearly = sum(more >= 0 for more in points), sum(more >= CLEAR_NATS for more in points)
    detail = {"kept": KEPT, "obd": [curvature[keep] for keep in KEPT], "magnitude": [magnitude[keep] for keep in KEPT]}
    bar = None if matched else 0
    return [
        row(f"{way}: points of {len(points)} where OBD's loss is not lower", lost, "", bar, **detail),
        row(f"{way}: of these, by 0.001 nats or more", clearly, "", bar),
        row(f"{way}: training loss at {100 * SHOWN:g} % kept, OBD", curvature[SHOWN][0], "nats"),
        row(f"{way}: training loss at {100 * SHOWN:g} % kept, magnitude", magnitude[SHOWN][0], "nats"),
    ]


def run(seeds: list[int]) -> list[dict]:
    """All curves."""
    rows = []
    for name in NETWORKS:
        for seed in seeds[: SEEDS_OF[name]]:
            for matched in (False, True):
                rows += compared(name, seed, True, matched) + compared(name, seed, False, matched)
    return rows
