"""LeNet-300-100 and LeNet-5 for MNIST, as used in the compression literature."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet300100(nn.Module):
    """Two hidden layers of 300 and 100 units.  LeCun, Bottou, Bengio, Haffner, 1998.

    Input (N, 1, 28, 28), output (N, 10) logits; 266,200 weights and 410 biases.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, images: Tensor) -> Tensor:
        activation = torch.flatten(images, 1)
        activation = functional.relu(self.fc1(activation))
        activation = functional.relu(self.fc2(activation))
        return self.fc3(activation)


class LeNet5(nn.Module):
    """LeNet-5 as in Caffe: max pooling, ReLU after fc1 only.  LeCun et al., 1998; Jia et al., 2014.

    Input (N, 1, 28, 28), output (N, 10) logits; 430,500 weights and 580 biases.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, images: Tensor) -> Tensor:
        activation = functional.max_pool2d(self.conv1(images), 2)
        activation = functional.max_pool2d(self.conv2(activation), 2)
        activation = functional.relu(self.fc1(torch.flatten(activation, 1)))
        return self.fc2(activation)


def lenet_300_100() -> LeNet300100:
    """Return LeNet-300-100 with fresh weights."""
    return LeNet300100()


def lenet_5() -> LeNet5:
    """Return Caffe's LeNet-5 with fresh weights."""
    return LeNet5()
