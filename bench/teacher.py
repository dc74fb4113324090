"""The teacher of the LeNets: a wider net, trained once on varied copies of MNIST's training set."""

import dataclasses

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.result import CACHE
from cortado.tasks import mnist
from cortado.training.loop import Training, train


def block(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]


def wide() -> nn.Module:
    """Two convolutions of 32 and 64 channels with batch norm, then 128 units."""
    head = [nn.Flatten(), nn.Linear(64 * 49, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*block(1, 32), *block(32, 64), *head)


def mnist_teacher() -> nn.Module:
    """The trained teacher, from bench/cache or trained now: 16 passes over as many images as the training set has."""
    torch.manual_seed(0)
    network, kept = wide(), CACHE / "mnist_teacher.safetensors"
    if kept.exists():
        network.load_state_dict(load_file(kept))
        return network.eval()
    task = dataclasses.replace(mnist.task(copies=7), seed=0)
    train(network, task, Training(epochs=2.0, lr=2e-3, precision="bfloat16"), label="train the teacher")
    CACHE.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, kept)
    return network.eval()
