"""Gated: networks with trained gates, and their static rivals with fewer blocks, trained alike; kept beside the results.

ResNet-20 was trained here (bench/held_out.py) and is scored on 10,000 pictures that it has not seen. ResNet-56 came trained:
it has seen all of the published training set, so only the first 1,000 test pictures are new to it.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from bench.held_out import half, trained
from bench.held_out import task as held_out
from bench.result import PIECES
from bench.taught import Run, run_of
from cortado.file.artifact import load, save
from cortado.methods.conditional.gates import ConditionalGates
from cortado.methods.finetune import Finetune
from cortado.methods.prune.blocks import PruneBlocks
from cortado.nets.resnet import CifarResNet, resnet_56
from cortado.network.view import View
from cortado.task.task import Task
from cortado.tasks.cifar10 import task as cifar10
from cortado.training.training import Training

TARGET, TEACHER = 0.6, 0.9
"""The share of samples that should run each block, and the share of the loss that the network as it came teaches."""


@dataclass(frozen=True)
class Subject:
    """A trained network, its task, how all learn, the weight of the target, and how many blocks the static rival loses."""

    name: str
    network: Callable[[], nn.Module]
    fresh: Callable[[], nn.Module]
    task: Callable[[], Task]
    epochs: float
    lr: float
    strength: float
    removed: int


SUBJECTS = (
    Subject("ResNet-20", lambda: trained("ResNet-20", 0), lambda: CifarResNet(3), held_out, 3.0, 0.05, 7.0, 2),
    Subject(
        "ResNet-56", lambda: resnet_56(weights=True).eval(), lambda: CifarResNet(9), cache(cifar10), 1.5, 0.03, 25.0, 6
    ),
)


def training(subject: Subject) -> Training:
    """Return how the gates and their rivals learn."""
    return Training(epochs=subject.epochs, lr=subject.lr, optimizer="sgd", decay=1e-4, batch=128, precision="bfloat16")


def stages(subject: Subject, removed: int) -> list[Any]:
    """Return the recipe: gates, or so many blocks removed and the same training."""
    how = training(subject)
    if removed:
        return [PruneBlocks(count=removed, samples=128), Finetune(how, teacher=TEACHER)]
    return [ConditionalGates(how, target=TARGET, strength=subject.strength, teacher=TEACHER)]


def label(subject: Subject, removed: int) -> str:
    """Return the name of a network's files."""
    return f"gates_{subject.name.lower()}_{removed or 'gated'}"


def made(subject: Subject, removed: int = 0) -> nn.Module:
    """Return the trained network, its floats rounded to float16; from its file, if it was trained before."""
    path = PIECES / f"{label(subject, removed)}.cortado"
    if not path.exists():
        original, task = subject.network(), subject.task()
        network = copy.deepcopy(original)
        for stage in stages(subject, removed):
            view = View(network, original, task.example)
            stage.apply(view, task)
            print(label(subject, removed), *view.notes, view.curves, sep="\n", flush=True)
        with torch.no_grad():
            for value in (*network.parameters(), *network.buffers()):
                value.copy_(half(value))
        path.parent.mkdir(parents=True, exist_ok=True)
        save(network, path, original)
    return load(path, subject.fresh).eval()


def run_named(subject: Subject, removed: int = 0) -> Run:
    """Return the scores of the network, with the minutes of its training."""
    how = [subject.epochs, subject.lr, TEACHER]
    settings = [subject.name, *how, *([f"without {removed}"] if removed else [TARGET, subject.strength])]
    return run_of("gates", settings, subject.task(), lambda: made(subject, removed))


def train_all(names: list[str]) -> None:
    """Train what is not kept yet of these networks, the gates first."""
    torch.set_num_threads(1)
    for subject in SUBJECTS:
        for removed in (0, subject.removed) if subject.name in names else ():
            run_named(subject, removed)


if __name__ == "__main__":
    train_all(sys.argv[1:])
