"""ResNet-8 for 32 x 32 images, the image classification network of MLPerf Tiny."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from cortado.nets.weights import load_arrays, read_arrays, weights_path


class ResNet8(nn.Module):
    """A stem and three blocks of width 16, 32, 64 with 1 x 1 shortcuts.  Banbury et al., MLPerf Tiny, 2021.

    Input (N, 3, 32, 32), raw pixels (0 to 255); output (N, 10) logits. Padding is TensorFlow's: a strided layer pads
    only right and bottom.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(3, 16, 3, padding=1), norm(16)
        self.conv1, self.bn1 = nn.Conv2d(16, 16, 3, padding=1), norm(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), norm(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 32, 3, stride=2), norm(32)
        self.conv4, self.bn4 = nn.Conv2d(32, 32, 3, padding=1), norm(32)
        self.conv5 = nn.Conv2d(16, 32, 1, stride=2)
        self.conv6, self.bn5 = nn.Conv2d(32, 64, 3, stride=2), norm(64)
        self.conv7, self.bn6 = nn.Conv2d(64, 64, 3, padding=1), norm(64)
        self.conv8 = nn.Conv2d(32, 64, 1, stride=2)
        self.fc = nn.Linear(64, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        activation = functional.relu(self.bn0(self.conv0(pixels)))
        branch = functional.relu(self.bn1(self.conv1(activation)))
        activation = functional.relu(activation + self.bn2(self.conv2(branch)))
        branch = functional.relu(self.bn3(self.conv3(functional.pad(activation, (0, 1, 0, 1)))))
        activation = functional.relu(self.conv5(activation) + self.bn4(self.conv4(branch)))
        branch = functional.relu(self.bn5(self.conv6(functional.pad(activation, (0, 1, 0, 1)))))
        activation = functional.relu(self.conv8(activation) + self.bn6(self.conv7(branch)))
        return self.fc(activation.mean((2, 3)))


def norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


def resnet_8(weights: str | Path | bool | None = None) -> ResNet8:
    """Return ResNet-8 for CIFAR-10: 78,186 parameters, 12.5 M multiply-adds.

    `weights` is the path of an .npz, or True for $CORTADO_DATA/weights/cifar10_resnet8_mlperftiny.npz; None for fresh
    weights. Raises BadValue for a missing file, BadNetwork if it does not fit.
    """
    network = ResNet8()
    if weights is not None and weights is not False:
        path = weights_path(weights, "cifar10_resnet8_mlperftiny.npz")
        load_arrays(network, read_arrays(path), str(path))
    return network
