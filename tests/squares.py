"""Squares: pictures of bright squares on the left or the right, a network for them, and a shift of one's own."""

import torch
from torch import nn

from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.pixels import Normalise

NORMALISE = Normalise((0.5,) * 3, (0.5,) * 3)


def pictures(count=40, channels=3, size=12):
    """Pictures of bright squares on the left or the right: two classes."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randint(0, 60, (count, channels, size, size), generator=generator)
    labels = torch.arange(count) % 2
    for number, label in enumerate(labels.tolist()):
        made[number, :, 3:9, 6 * label : 6 * label + 5] += 150
    return made.to(torch.uint8), labels


def data(**more):
    return Data(*pictures(**more), Normalise((0.5,) * more.get("channels", 3), (0.5,) * more.get("channels", 3)))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 2)).eval()


def task(**more):
    images, labels = pictures(120)
    scale = Normalise((0.5,) * 3, (0.5,) * 3)
    return Task(*(Data(images[a:b], labels[a:b], scale) for a, b in ((0, 40), (40, 80), (80, 120))), **more)


def darker(inputs, generator):
    """A shift of one's own."""
    return inputs // 4
