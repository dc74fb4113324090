"""Held out: CIFAR-10 networks trained here, scored on 10,000 pictures that neither they nor any choice has seen.

35,000 pictures to train on, stored with 7 shifted and mirrored copies each; 5,000 to choose on; the last 10,000 of the
published training set to score on. The published networks were trained on the latter, so they may teach, but not be scored.
"""

import dataclasses
from collections.abc import Callable
from functools import cache

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.result import PIECES
from cortado.nets.resnet import CifarResNet
from cortado.task.task import Data, Task
from cortado.tasks.augment import shift_crop_flip, stored_copies
from cortado.tasks.cifar10 import NORMALISE, read_cifar10
from cortado.training.loop import train
from cortado.training.training import Training

TRAIN, VALIDATION = 35_000, 5_000
COPIES = 7
EPOCHS = 20.0
"""Passes over as many pictures as the training set has without its copies."""
NETS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-8": lambda: CifarResNet(1),
    "ResNet-8, twice as wide": lambda: CifarResNet(1, width=32),
    "ResNet-20": lambda: CifarResNet(3),
}


def training(epochs: float = EPOCHS) -> Training:
    """Return how networks are trained from scratch: epochs are passes over the pictures without their copies."""
    return Training(
        epochs=epochs / (1 + COPIES), lr=0.1, optimizer="sgd", decay=5e-4, warmup=0.05, precision="bfloat16"
    )


@cache
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """Return all published training pictures and labels."""
    return read_cifar10()[0]


@cache
def task() -> Task:
    """Return the task with plain training pictures, shifted and mirrored anew at every epoch."""
    images, labels = pictures()
    ends = (TRAIN, TRAIN + VALIDATION)
    return Task(
        train=Data(images[: ends[0]], labels[: ends[0]], NORMALISE, shift_crop_flip),
        validation=Data(images[ends[0] : ends[1]], labels[ends[0] : ends[1]], NORMALISE),
        test=Data(images[ends[1] :], labels[ends[1] :], NORMALISE),
        name="cifar10 held out",
    )


@cache
def stored() -> Task:
    """Return the same task with the training pictures and their stored copies, so that a teacher is asked once for each."""
    plain = task()
    generator = torch.Generator().manual_seed(0)
    return dataclasses.replace(plain, train=stored_copies(plain.train, COPIES, generator, shift_crop_flip))


def fresh(name: str, seed: int) -> nn.Module:
    """Return a network with the fresh weights of its seed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return NETS[name]()


def trained(name: str, seed: int) -> nn.Module:
    """Return the network trained on labels alone; its weights, rounded to float16, are kept beside the results."""
    network, path = (
        fresh(name, seed),
        PIECES / f"{name.lower().replace(', ', '_').replace(' ', '_')}_{seed}.safetensors",
    )
    if not path.exists():
        train(network, stored(), training(), seed=seed, label=f"{name}, seed {seed}")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: half(value) for key, value in network.state_dict().items()}, path)
    network.load_state_dict({key: value.float() if value.dtype == torch.float16 else value
                             for key, value in load_file(path).items()})  # fmt: skip
    return network.eval()


def half(value: torch.Tensor) -> torch.Tensor:
    """Return floats in float16, and everything else as it is."""
    return value.half().contiguous() if value.is_floating_point() else value.contiguous()
