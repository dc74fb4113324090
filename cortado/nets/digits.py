"""A small network for 8 x 8 images of digits, which trains in seconds."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DigitsNet(nn.Module):
    """Three convolutions with batch norm and a linear layer.  After LeCun et al., 1998; Ioffe and Szegedy, 2015.

    Input (N, 1, 8, 8), output (N, 10) logits; 25,744 weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.linear = nn.Linear(64 * 2 * 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        activation = functional.relu(self.bn1(self.conv1(images)))
        activation = functional.max_pool2d(functional.relu(self.bn2(self.conv2(activation))), 2)
        activation = functional.max_pool2d(functional.relu(self.bn3(self.conv3(activation))), 2)
        return self.linear(torch.flatten(activation, 1))


def digits_net() -> DigitsNet:
    """Return the network for digits, with fresh weights."""
    return DigitsNet()
