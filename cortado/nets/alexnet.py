"""AlexNet as first published, with grouped convolutions."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class AlexNet(nn.Module):
    """Five convolutions, three of them in two groups, and three linear layers.  Krizhevsky, Sutskever, Hinton, 2012.

    Input (N, 3, 227, 227), output (N, `classes`) logits.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, classes)
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        self.pool = nn.MaxPool2d(3, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.pool(self.norm(functional.relu(self.conv1(images))))
        activation = self.pool(self.norm(functional.relu(self.conv2(activation))))
        activation = functional.relu(self.conv3(activation))
        activation = functional.relu(self.conv4(activation))
        activation = self.pool(functional.relu(self.conv5(activation)))
        activation = self.dropout(functional.relu(self.fc6(torch.flatten(activation, 1))))
        activation = self.dropout(functional.relu(self.fc7(activation)))
        return self.fc8(activation)


def alexnet(classes: int = 1000) -> AlexNet:
    """Return AlexNet: 61 M parameters, 724 M multiply-adds."""
    return AlexNet(classes)
