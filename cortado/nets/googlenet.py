"""GoogLeNet, the first Inception network, without the two auxiliary heads used in training."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# in, 1x1, reduce 3x3, 3x3, reduce 5x5, 5x5, pool projection
MODULES = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """Four parallel branches: 1 x 1, 3 x 3, 5 x 5 and pooling, the larger ones with a 1 x 1 reduction."""

    def __init__(self, into: int, one: int, narrow3: int, three: int, narrow5: int, five: int, pooled: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(into, one, 1)
        self.reduce3x3 = nn.Conv2d(into, narrow3, 1)
        self.conv3x3 = nn.Conv2d(narrow3, three, 3, padding=1)
        self.reduce5x5 = nn.Conv2d(into, narrow5, 1)
        self.conv5x5 = nn.Conv2d(narrow5, five, 5, padding=2)
        self.pool_projection = nn.Conv2d(into, pooled, 1)

    def forward(self, activation: Tensor) -> Tensor:
        one = self.conv1x1(activation)
        three = self.conv3x3(functional.relu(self.reduce3x3(activation)))
        five = self.conv5x5(functional.relu(self.reduce5x5(activation)))
        pooled = self.pool_projection(functional.max_pool2d(activation, 3, 1, padding=1))
        return functional.relu(torch.cat((one, three, five, pooled), 1))


class GoogLeNet(nn.Module):
    """22 layers with weights.  Szegedy et al., 2015 (table 1).

    Input (N, 3, 224, 224), output (N, `classes`) logits.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.reduce2 = nn.Conv2d(64, 64, 1)
        self.conv2 = nn.Conv2d(64, 192, 3, padding=1)
        self.inceptions = nn.ModuleDict({name: Inception(*widths) for name, widths in MODULES.items()})
        self.linear = nn.Linear(1024, classes)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.dropout = nn.Dropout(0.4)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.norm(self.pool(functional.relu(self.conv1(images))))
        activation = functional.relu(self.reduce2(activation))
        activation = self.pool(self.norm(functional.relu(self.conv2(activation))))
        for name, inception in self.inceptions.items():
            activation = inception(activation)
            if name in ("inception3b", "inception4e"):
                activation = self.pool(activation)
        return self.linear(self.dropout(activation.mean((2, 3))))


def googlenet(classes: int = 1000) -> GoogLeNet:
    """Return GoogLeNet: 7.0 M parameters, 1.58 G multiply-adds."""
    return GoogLeNet(classes)
