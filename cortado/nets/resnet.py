"""ResNets for 32 x 32 images, with parameter-free shortcuts."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.nets.scaled import at_resolution
from cortado.nets.weights import load_arrays, read_arrays, weights_path


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; option A: subsample, and pad the new channels with zeros."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, (channels_out - channels_in) // 2
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, activation: Tensor) -> Tensor:
        branch = functional.relu(self.bn1(self.conv1(activation)))
        branch = self.bn2(self.conv2(branch))
        if self.stride > 1:
            activation = activation[:, :, :: self.stride, :: self.stride]
        if self.padding:
            activation = functional.pad(activation, (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(branch + activation)


class CifarResNet(nn.Module):
    """6n + 2 layers in three stages of width 16, 32, 64.  He, Zhang, Ren, Sun, 2016 (section 4.2, option A).

    Input (N, 3, 32, 32), output (N, `classes`) logits.
    """

    def __init__(self, blocks: int, classes: int = 10, width: int = 16, resolution: int | None = None) -> None:
        super().__init__()
        self.resolution = resolution
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(blocks, width, width, stride=1)
        self.layer2 = stage(blocks, width, 2 * width, stride=2)
        self.layer3 = stage(blocks, 2 * width, 4 * width, stride=2)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        activation = functional.relu(self.bn1(self.conv1(at_resolution(images, self.resolution))))
        activation = self.layer3(self.layer2(self.layer1(activation)))
        return self.linear(activation.mean((2, 3)))


def stage(blocks: int, channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """Return `blocks` blocks; the first one changes width and size."""
    first = BasicBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))


def cifar_resnet(width: int = 16, depth: int = 3, resolution: int | None = None, classes: int = 10) -> CifarResNet:
    """Return a ResNet of 6 `depth` + 2 layers whose first stage has `width` channels: ResNet-20 by default.

    Widths are rounded to even numbers, because a shortcut is padded on both sides alike. With `resolution`, images of another
    size are resized first. Raises BadValue for sizes out of range.
    """
    if min(width, depth) < 1 or (resolution is not None and resolution < 8):
        raise BadValue(
            f"cifar_resnet: width and depth must be at least 1 and resolution 8 or more, got {width}, {depth}, {resolution}."
        )
    return CifarResNet(depth, classes, max(2, 2 * round(width / 2)), resolution)


def resnet_20(weights: str | Path | bool | None = None) -> CifarResNet:
    """Return ResNet-20 for CIFAR-10: 0.27 M parameters, 40.6 M multiply-adds.

    `weights` is the path of an .npz, or True for $CORTADO_DATA/weights/cifar10_resnet20.npz; None for fresh weights.
    Raises BadValue for a missing file, BadNetwork if it does not fit.
    """
    return with_weights(CifarResNet(3), weights, "cifar10_resnet20.npz")


def resnet_56(weights: str | Path | bool | None = None) -> CifarResNet:
    """Return ResNet-56 for CIFAR-10: 0.85 M parameters, 125.5 M multiply-adds.  `weights` as in `resnet_20`."""
    return with_weights(CifarResNet(9), weights, "cifar10_resnet56.npz")


def trained_resnet_56() -> CifarResNet:
    """Return `resnet_56` with trained weights, a teacher for recipes as cortado.nets.resnet:trained_resnet_56."""
    return resnet_56(weights=True)


def with_weights(network: CifarResNet, weights: str | Path | bool | None, file_name: str) -> CifarResNet:
    """Load the weights of the .npz, if any, and return `network`."""
    if weights is not None and weights is not False:
        path = weights_path(weights, file_name)
        load_arrays(network, read_arrays(path), str(path))
    return network
