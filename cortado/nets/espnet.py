"""ESPNet: segmentation with parallel dilated convolutions and a light decoder of transposed convolutions."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.nets.weights import load_arrays, read_arrays, weights_path

EPSILON = 1e-3
DILATIONS = (1, 2, 4, 8, 16)


class SameConv(nn.Module):
    """A convolution without bias, padded so that only the stride changes the size."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        reach = dilation * (kernel // 2)
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, reach, dilation, bias=False)

    def forward(self, activation: Tensor) -> Tensor:
        return self.conv(activation)


class Activated(nn.Module):
    """A batch norm and a PReLU with one slope per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, EPSILON)
        self.act = nn.PReLU(channels)

    def forward(self, activation: Tensor) -> Tensor:
        return self.act(self.bn(activation))


class ActivatedConv(Activated):
    """A 3 x 3 convolution, a batch norm and a PReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__(channels_out)
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)

    def forward(self, activation: Tensor) -> Tensor:
        return super().forward(self.conv(activation))


class Pyramid(nn.Module):
    """Reduce to a fifth of the channels, apply five dilations, and concatenate their running sums (HFF)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = channels_out // len(DILATIONS)
        first = channels_out - width * (len(DILATIONS) - 1)
        self.c1 = SameConv(channels_in, width, kernel, stride)
        for dilation in DILATIONS:
            self.add_module(f"d{dilation}", SameConv(width, first if dilation == 1 else width, 3, dilation=dilation))

    def side_by_side(self, activation: Tensor) -> Tensor:
        reduced = self.c1(activation)
        nearest, *rest = [self.get_submodule(f"d{dilation}")(reduced) for dilation in DILATIONS]
        sums = [rest[0]]
        for one in rest[1:]:
            sums.append(sums[-1] + one)
        return torch.cat([nearest, *sums], 1)


class Halving(Pyramid):
    """The module that halves the resolution: a strided reduction, without a residual sum."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, 2)
        self.bn = nn.BatchNorm2d(channels_out, EPSILON)
        self.act = nn.PReLU(channels_out)

    def forward(self, activation: Tensor) -> Tensor:
        return self.act(self.bn(self.side_by_side(activation)))


class Module(Pyramid):
    """The ESP module; with `add` a residual sum before the norm."""

    def __init__(self, channels_in: int, channels_out: int, add: bool = True) -> None:
        super().__init__(channels_in, channels_out, 1, 1)
        self.add = add
        self.bn = Activated(channels_out)

    def forward(self, activation: Tensor) -> Tensor:
        made = self.side_by_side(activation)
        return self.bn(activation + made if self.add else made)


class Encoder(nn.Module):
    """Three levels, at 1/2, 1/4 and 1/8 resolution; the image is concatenated to the first two."""

    def __init__(self, classes: int, p: int, q: int) -> None:
        super().__init__()
        self.level1 = ActivatedConv(3, 16, 2)
        self.b1 = Activated(16 + 3)
        self.level2_0 = Halving(16 + 3, 64)
        self.level2 = nn.ModuleList(Module(64, 64) for _ in range(p))
        self.b2 = Activated(2 * 64 + 3)
        self.level3_0 = Halving(2 * 64 + 3, 128)
        self.level3 = nn.ModuleList(Module(128, 128) for _ in range(q))
        self.b3 = Activated(2 * 128)
        self.classifier = SameConv(2 * 128, classes, 1)

    def levels(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each level's output, (N, 19, H / 2, W / 2), (N, 131, H / 4, W / 4) and (N, 256, H / 8, W / 8)."""
        half = functional.avg_pool2d(images, 3, 2, 1)
        quarter = functional.avg_pool2d(half, 3, 2, 1)
        first = self.b1(torch.cat([self.level1(images), half], 1))
        entry = self.level2_0(first)
        second = self.b2(torch.cat([through(self.level2, entry), entry, quarter], 1))
        entry = self.level3_0(second)
        return first, second, self.b3(torch.cat([entry, through(self.level3, entry)], 1))


def through(modules: nn.ModuleList, activation: Tensor) -> Tensor:
    """Apply the modules in sequence."""
    for module in modules:
        activation = module(activation)
    return activation


class ESPNet(nn.Module):
    """An encoder of ESP modules and a decoder of `classes` channels.  Mehta, Rastegari, Caspi, Shapiro, Hajishirzi, 2018.

    Input (N, 3, H, W), H and W multiples of 8; output (N, `classes`, H, W) logits. `p` and `q` are the numbers of ESP
    modules at 1/4 and 1/8 resolution.
    """

    def __init__(self, classes: int, p: int, q: int) -> None:
        super().__init__()
        self.encoder = Encoder(classes, p, q)
        self.level3_C = SameConv(2 * 64 + 3, classes, 1)
        self.br = nn.BatchNorm2d(classes, EPSILON)
        self.conv = ActivatedConv(16 + 3 + classes, classes, 1)
        self.up_l3 = nn.Sequential(doubled(classes))
        self.combine_l2_l3 = nn.Sequential(Activated(2 * classes), Module(2 * classes, classes, add=False))
        self.up_l2 = nn.Sequential(doubled(classes), Activated(classes))
        self.classifier = doubled(classes)

    def forward(self, images: Tensor) -> Tensor:
        first, second, third = self.encoder.levels(images)
        coarse = self.up_l3(self.br(self.encoder.classifier(third)))
        middle = self.up_l2(self.combine_l2_l3(torch.cat([self.level3_C(second), coarse], 1)))
        return self.classifier(self.conv(torch.cat([middle, first], 1)))


def doubled(channels: int) -> nn.ConvTranspose2d:
    """Return a learned upsampling by a factor of two."""
    return nn.ConvTranspose2d(channels, channels, 2, 2, bias=False)


def espnet(classes: int = 12, p: int = 2, q: int = 8, weights: str | Path | bool | None = None) -> ESPNet:
    """Return ESPNet: 0.35 M parameters with p 2, q 8 and 12 classes.

    `weights` is the path of an .npz, or True for $CORTADO_DATA/weights/camvid_espnet_p2_q8.npz (CamVid, blue first);
    None for fresh weights. Raises BadValue for a missing file, BadNetwork if it does not fit.
    """
    network = ESPNet(classes, p, q)
    if weights is not None and weights is not False:
        path = weights_path(weights, "camvid_espnet_p2_q8.npz")
        load_arrays(network, read_arrays(path), str(path))
    return network
