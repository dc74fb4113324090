"""rotation: MNIST turned by any angle - a network whose feature maps turn with the picture, against plain ones.

12,000 training and 10,000 test digits, each turned by a random angle; five convolutions, eight epochs, no augmentation.
The rivals are plain: one of about as many parameters, one of as many multiply-adds. Cohen, Welling, 2016 go from 5.03 to
2.28 % on the original task.
"""

import math
from functools import cache
from statistics import mean
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from bench.result import row
from bench.taught import Run, run_of
from bench.transferred_nets import Vgg
from cortado.methods.transfer.rotate import TransferRotate
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.mnist import NORMALISE
from cortado.tasks.mnist import task as mnist
from cortado.training.loop import train
from cortado.training.training import Training

SEEDS = [0, 1]
TRAIN, VALIDATION = 12_000, 2_000
WIDTHS, POOLED = (32, 32, 64, 64, 64), (0, 2)
TURNED, SAME_PARAMETERS, SAME_COST = "turned (p4)", "plain, as many parameters", "plain, as many multiply-adds"
NETS = {TURNED: WIDTHS, SAME_PARAMETERS: [width // 2 for width in WIDTHS], SAME_COST: WIDTHS}
HOW = Training(epochs=8.0, lr=0.05, optimizer="sgd", decay=5e-4, warmup=0.05, batch=64, precision="bfloat16")
SHARE, ERROR, EQUIVARIANCE = 0.6, 3.0, 1e-5


def turned(data: Data, count: int, seed: int) -> Data:
    """Return so many of the pictures, drawn once, each turned by a random angle."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data.inputs), generator=generator)[:count]
    images, angles = data.inputs[chosen].float(), 2 * math.pi * torch.rand(count, generator=generator)
    sine, cosine, none = angles.sin(), angles.cos(), torch.zeros(count)
    moves = torch.stack([cosine, -sine, none, sine, cosine, none], 1).view(-1, 2, 3)
    grid = functional.affine_grid(moves, list(images.shape), align_corners=False)
    spun = functional.grid_sample(images, grid, align_corners=False).round().to(torch.uint8)
    return Data(spun, data.targets[chosen], NORMALISE)


@cache
def task() -> Task:
    """Return the task of turned digits."""
    plain = mnist()
    return Task(
        train=turned(plain.train, TRAIN, 1), validation=turned(plain.validation, VALIDATION, 3),
        test=turned(plain.test, 10_000, 2), name="turned mnist",
    )  # fmt: skip


def untrained(name: str, seed: int) -> nn.Module:
    """Return a network with the fresh weights of its seed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network: nn.Module = Vgg(NETS[name], 1, POOLED)
    if name == TURNED:
        view = View(network, network, task().example)
        TransferRotate(start="fresh").apply(view, task())
        network = view.network
    return network


def learned(name: str, seed: int) -> nn.Module:
    """Return the network, trained."""
    network = untrained(name, seed)
    train(network, task(), HOW, seed=seed, label=f"{name}, seed {seed}")
    return network.eval()


def trained_run(name: str, seed: int) -> Run:
    """Return the scores of the trained network; kept."""
    return run_of("rotation", [name, seed, HOW.epochs, HOW.lr], task(), lambda: learned(name, seed))


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the errors on turned digits, and how exactly the outputs stay when a digit turns by a quarter."""
    torch.set_num_threads(1)
    rows, errors = [], {}
    for name in NETS:
        costs = profile(untrained(name, 0), task().example)
        rows.append(row(f"{name}: parameters", costs.total("parameters").value, ""))
        rows.append(row(f"{name}: multiply-adds", costs.total("multiply_adds").value / 1e6, "M"))
        runs = [trained_run(name, seed) for seed in seeds]
        errors[name] = mean(100 - one["test"] for one in runs)
        values = [100 - one["test"] for one in runs]
        bar = ERROR if name == TURNED else None
        rows.append(row(f"{name}: error, mean of {len(runs)} seeds", errors[name], "%", bar, values=values,
                        minutes=[one["minutes"] for one in runs]))  # fmt: skip
    for name in (SAME_PARAMETERS, SAME_COST):
        rows.append(row(f"{TURNED}: share of the error of {name}", errors[TURNED] / errors[name], "x", SHARE))
    network = learned(TURNED, seeds[0])
    images, _ = next(iter(task().test.batches(200)))
    with torch.no_grad():
        straight, quarter = network(images), network(torch.rot90(images, 1, (2, 3)))
    far = float((straight - quarter).abs().max() / straight.abs().max())
    rows.append(
        row(f"{TURNED}: largest change of an output under a quarter turn, of the largest", far, "", EQUIVARIANCE)
    )
    return rows
