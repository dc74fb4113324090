"""Bi-Real ResNet-20 for 32 x 32 images, designed for 1-bit weights and activations: a shortcut around every convolution."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class BiRealUnit(nn.Module):
    """norm(conv(clipped x)) + x; with a stride, the shortcut is a 2 x 2 average with doubled channels.

    The convolution's input is clipped to -1..1, the range in which a sign has a gradient. quantize/xnor binarizes that
    input, and the sum stays in floats.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.clip = nn.Hardtanh()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.stride, self.copies = stride, channels_out // channels_in

    def forward(self, activation: Tensor) -> Tensor:
        branch = self.norm(self.conv(self.clip(activation)))
        if self.stride > 1:
            activation = functional.avg_pool2d(activation, self.stride)
        if self.copies > 1:
            activation = torch.cat([activation] * self.copies, 1)
        return branch + activation


class BiRealResNet(nn.Module):
    """Three stages of `units` one-convolution units, of width 16, 32, 64.  Liu et al., 2018 (Bi-Real Net).

    Input (N, 3, 32, 32), output (N, `classes`) logits. The paper keeps the first convolution and the linear layer in
    full precision.
    """

    def __init__(self, units: int, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        made, channels = [], width
        for stage in range(3):
            for number in range(units):
                wide, stride = width << stage, 2 if stage and not number else 1
                made.append(BiRealUnit(channels, wide, stride))
                channels = wide
        self.units = nn.Sequential(*made)
        self.linear = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.units(self.norm1(self.conv1(images)))
        return self.linear(activation.mean((2, 3)))


def bi_real_resnet_20() -> BiRealResNet:
    """Return ResNet-20 of Bi-Real units for CIFAR-10, with fresh weights: 0.27 M parameters."""
    return BiRealResNet(6)
