"""A user's large network and a small one of another kind, for scikit-learn's digits; and one that does not fit."""

import torch
from torch import Tensor, nn


def large() -> nn.Module:
    """Linear layers over all pixels: 26 thousand parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


class Small(nn.Module):
    """One convolution and a linear layer: a thousand parameters."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(16 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(images))).flatten(1))


def eleven() -> nn.Module:
    """A class too many."""
    return Small(classes=11)


def broken() -> nn.Module:
    """A maker that fails."""
    raise KeyError("layers")
