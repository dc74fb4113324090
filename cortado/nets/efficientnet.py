"""EfficientNet B0 to B7: inverted residuals with squeeze and excitation, scaled in width, depth and resolution together."""

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.nets.scaled import at_resolution, channels_at, check_scale, repeats_at, strides_at

# expansion, kernel, output channels, repeats; the strides of the stem and of each stage
STAGES = ((1, 3, 16, 1), (6, 3, 24, 2), (6, 5, 40, 2), (6, 3, 80, 3), (6, 5, 112, 3), (6, 5, 192, 4), (6, 3, 320, 1))
STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)
FIRST, LAST = 32, 1280
# width, depth, resolution, dropout
VARIANTS = (
    (1.0, 1.0, 224, 0.2), (1.0, 1.1, 240, 0.2), (1.1, 1.2, 260, 0.3), (1.2, 1.4, 300, 0.3), (1.4, 1.8, 380, 0.4),
    (1.6, 2.2, 456, 0.4), (1.8, 2.6, 528, 0.5), (2.0, 3.1, 600, 0.5),
)  # fmt: skip
EPS = 1e-3


def unit(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1, swish: bool = True) -> nn.Sequential:
    """Return a convolution without bias, a batch norm, and swish if wanted."""
    layers: list[nn.Module] = [
        nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out, EPS)
    ]  # fmt: skip
    return nn.Sequential(*layers, *([nn.SiLU()] if swish else []))


class Excitation(nn.Module):
    """Scales each channel by a number in 0..1 that depends on the means of all.  Hu, Shen, Sun, 2018."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce, self.expand, self.act = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1), nn.SiLU()

    def forward(self, activation: Tensor) -> Tensor:
        means = activation.mean((2, 3), keepdim=True)
        return activation * torch.sigmoid(self.expand(self.act(self.reduce(means))))


class MBConv(nn.Module):
    """Expand by 1 x 1, filter depthwise, excite, project linearly by 1 x 1; a shortcut where the shapes allow it."""

    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = into * expansion
        self.expand = unit(into, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = unit(wide, wide, kernel, stride, wide)
        self.excite = Excitation(wide, max(1, into // 4))
        self.project = unit(wide, out, 1, swish=False)
        self.shortcut = stride == 1 and into == out

    def forward(self, activation: Tensor) -> Tensor:
        made = self.project(self.excite(self.depthwise(self.expand(activation))))
        return activation + made if self.shortcut else made


class EfficientNet(nn.Module):
    """Input (N, 3, R, R), output (N, `classes`) logits.  Tan and Le, 2019."""

    def __init__(
        self, classes: int, width: float, depth: float, resolution: int | None, stride: int, dropout: float
    ) -> None:
        super().__init__()
        self.resolution = resolution
        first, *steps = strides_at(STRIDES, stride)
        into = channels_at(FIRST, width)
        self.stem = unit(3, into, 3, first)
        blocks: list[nn.Module] = []
        for (expansion, kernel, base, repeats), step in zip(STAGES, steps, strict=True):
            out = channels_at(base, width)
            for number in range(repeats_at(repeats, depth)):
                blocks.append(MBConv(into, out, kernel, 1 if number else step, expansion))
                into = out
        self.blocks = nn.Sequential(*blocks)
        last = channels_at(LAST, width)
        self.head = unit(into, last, 1)
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.head(self.blocks(self.stem(at_resolution(images, self.resolution))))
        return self.linear(self.dropout(activation.mean((2, 3))))


def efficientnet(
    variant: int = 0, classes: int = 1000, width: float = 1.0, depth: float = 1.0, resolution: int | None = None,
    stride: int = 32, dropout: float | None = None,
) -> EfficientNet:  # fmt: skip
    """Return EfficientNet B`variant`, 0 to 7: B0 has 5.3 M parameters and 0.39 G multiply-adds on 224 x 224.

    `width` and `depth` scale the variant further. With `resolution`, images of another size are resized first; VARIANTS has
    that of the paper. `stride`: how many times smaller the last maps are than the input, 32 for ImageNet; 8 or 4 for 32 x 32
    pictures. Raises BadValue for sizes out of range.
    """
    if not isinstance(variant, int) or not 0 <= variant < len(VARIANTS):
        raise BadValue(f"efficientnet: variant must lie in 0..{len(VARIANTS) - 1}, got {variant}.")
    check_scale("efficientnet", width, depth, resolution, stride)
    wide, deep, _, drop = VARIANTS[variant]
    return EfficientNet(classes, wide * width, deep * depth, resolution, stride, drop if dropout is None else dropout)
