"""VGG for CIFAR and ImageNet, and its three shallower predecessors."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue

STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


class CifarVgg(nn.Module):
    """VGG-16 for 32 x 32 images, with batch norm and one linear layer.  Simonyan and Zisserman, 2015.

    Input (N, 3, 32, 32), output (N, `classes`) logits. `width` scales the channels of every convolution.
    """

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for convolutions, base in zip(STAGES[16], WIDTHS, strict=True):
            for _ in range(convolutions):
                wide = max(1, round(base * width))
                layers += [nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
                channels = wide
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(torch.flatten(self.features(images), 1))


class Vgg(nn.Module):
    """VGG-16 or VGG-19 for ImageNet, without batch norm.  Simonyan and Zisserman, 2015 (configurations D and E).

    Input (N, 3, 224, 224), output (N, `classes`) logits.
    """

    def __init__(self, depth: int, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for convolutions, wide in zip(STAGES[depth], WIDTHS, strict=True):
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU()]
                channels = wide
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc6 = nn.Linear(channels * 7 * 7, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        activation = torch.flatten(self.features(images), 1)
        activation = self.dropout(functional.relu(self.fc6(activation)))
        activation = self.dropout(functional.relu(self.fc7(activation)))
        return self.fc8(activation)


class ChatfieldNet(nn.Module):
    """CNN-F, CNN-M or CNN-S: fast, medium, slow; five convolutions and three linear layers.  Chatfield et al., 2014.

    Input (N, 3, 224, 224), output (N, `classes`) logits. Pooling rounds sizes up and the second convolution of CNN-S has
    no padding, as in the authors' Caffe models; the paper's table has a padding of 1 there.
    """

    # first (channels, kernel, stride), second (stride, padding), deep channels, (kernel, stride) of the three poolings
    SHAPES = {
        "f": ((64, 11, 4), (1, 2), 256, ((3, 2), (3, 2), (3, 2))),
        "m": ((96, 7, 2), (2, 1), 512, ((3, 2), (3, 2), (3, 2))),
        "s": ((96, 7, 2), (1, 0), 512, ((3, 3), (2, 2), (3, 3))),
    }

    def __init__(self, speed: str, classes: int = 1000) -> None:
        super().__init__()
        (wide, kernel, stride), (second_stride, padding), deep, pools = self.SHAPES[speed]
        self.conv1 = nn.Conv2d(3, wide, kernel, stride)
        self.conv2 = nn.Conv2d(wide, 256, 5, second_stride, padding)
        self.conv3 = nn.Conv2d(256, deep, 3, padding=1)
        self.conv4 = nn.Conv2d(deep, deep, 3, padding=1)
        self.conv5 = nn.Conv2d(deep, deep, 3, padding=1)
        self.fc6 = nn.Linear(deep * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, classes)
        self.norm1 = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        # CNN-S normalises after its first convolution only.
        self.norm2 = nn.Identity() if speed == "s" else nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        self.pool1, self.pool2, self.pool5 = (nn.MaxPool2d(size, step, ceil_mode=True) for size, step in pools)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.pool1(self.norm1(functional.relu(self.conv1(images))))
        activation = self.pool2(self.norm2(functional.relu(self.conv2(activation))))
        activation = functional.relu(self.conv3(activation))
        activation = functional.relu(self.conv4(activation))
        activation = self.pool5(functional.relu(self.conv5(activation)))
        activation = self.dropout(functional.relu(self.fc6(torch.flatten(activation, 1))))
        activation = self.dropout(functional.relu(self.fc7(activation)))
        return self.fc8(activation)


def vgg_16_cifar(classes: int = 10, width: float = 1.0) -> CifarVgg:
    """Return VGG-16 with batch norm for CIFAR: 14.7 M parameters, 313 M multiply-adds.  Raises BadValue for a width of 0."""
    if width <= 0:
        raise BadValue(f"vgg_16_cifar: width must be above 0, got {width}. The original network has width=1.0.")
    return CifarVgg(classes, width)


def vgg_16(classes: int = 1000) -> Vgg:
    """Return VGG-16 for ImageNet: 138 M parameters, 15.5 G multiply-adds."""
    return Vgg(16, classes)


def vgg_19(classes: int = 1000) -> Vgg:
    """Return VGG-19 for ImageNet: 144 M parameters, 19.6 G multiply-adds."""
    return Vgg(19, classes)


def vgg_f(classes: int = 1000) -> ChatfieldNet:
    """Return CNN-F: 61 M parameters, 0.72 G multiply-adds."""
    return ChatfieldNet("f", classes)


def vgg_m(classes: int = 1000) -> ChatfieldNet:
    """Return CNN-M: 103 M parameters, 1.68 G multiply-adds."""
    return ChatfieldNet("m", classes)


def vgg_s(classes: int = 1000) -> ChatfieldNet:
    """Return CNN-S: 103 M parameters, 2.64 G multiply-adds."""
    return ChatfieldNet("s", classes)
