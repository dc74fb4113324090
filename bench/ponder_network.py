"""The network that ponders: one stage of residual blocks of 128 channels on 16 x 16 positions, for CIFAR-10.

It learns most of the way on pictures of half the size, where a pass costs a quarter; nothing in it depends on the size.
"""

import dataclasses
from functools import cache

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from bench.held_out import half, stored
from bench.result import PIECES
from cortado.nets.resnet import stage
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.cifar10 import NORMALISE
from cortado.training.loop import train
from cortado.training.training import Training

COPIES = 8
"""Stored pictures for each of the training set."""
SMALL_PASSES, LARGE_PASSES = 6.0, 0.6


class Wide(nn.Module):
    """A convolution, five residual blocks of 128 channels, the first with stride 2, and a linear layer.

    Pictures (N, 3, 32, 32), or of another even size, to logits (N, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.stage = stage(5, 64, 128, stride=2)
        self.linear = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        activation = functional.relu(self.bn1(self.conv1(images)))
        return self.linear(self.stage(activation).mean((2, 3)))


def halved(images: Tensor) -> Tensor:
    """Return normalised pictures of half the size."""
    return functional.avg_pool2d(NORMALISE(images), 2)


@cache
def small_task() -> Task:
    """Return the task on pictures of half the size."""
    full = stored()
    parts = {name: getattr(full, name) for name in ("train", "validation", "test")}
    return dataclasses.replace(full, **{name: Data(one.inputs, one.targets, halved) for name, one in parts.items()})


def how(passes: float, lr: float) -> Training:
    """Return the training of so many passes over the pictures without their copies."""
    return Training(
        epochs=passes / COPIES, lr=lr, optimizer="sgd", decay=5e-4, warmup=0.05, batch=128, precision="bfloat16"
    )


def dense() -> nn.Module:
    """Return the trained network that computes every block everywhere; its weights are kept in float16."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = Wide()
    path = PIECES / f"ponder_wide_{SMALL_PASSES:g}_{LARGE_PASSES:g}.safetensors"
    if not path.exists():
        train(network, small_task(), how(SMALL_PASSES, 0.1), label="small pictures")
        train(network, stored(), how(LARGE_PASSES, 0.02), label="large pictures")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: half(value) for key, value in network.state_dict().items()}, path)
    values = load_file(path).items()
    network.load_state_dict({key: one.float() if one.dtype == torch.float16 else one for key, one in values})
    return network.eval()
