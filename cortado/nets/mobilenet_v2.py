"""MobileNet V2: inverted residuals with linear bottlenecks."""

from torch import Tensor, nn

from cortado.nets.scaled import at_resolution, channels_at, check_scale, repeats_at, strides_at

# expansion, output channels, repeats; the strides of the stem and of each stage
STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)
FIRST, LAST = 32, 1280


def normed_convolution(
    into: int, out: int, kernel: int, stride: int = 1, groups: int = 1, clipped: bool = True
) -> nn.Sequential:
    """Return a convolution without bias, a batch norm, and ReLU6 if `clipped`."""
    layers: list[nn.Module] = [
        nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)
    ]  # fmt: skip
    return nn.Sequential(*layers, *([nn.ReLU6()] if clipped else []))


class InvertedResidual(nn.Module):
    """Expand by 1 x 1, filter depthwise, project linearly by 1 x 1; a shortcut where the shapes allow it."""

    def __init__(self, into: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = into * expansion
        self.expand = normed_convolution(into, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = normed_convolution(wide, wide, 3, stride, wide)
        self.project = normed_convolution(wide, out, 1, clipped=False)
        self.shortcut = stride == 1 and into == out

    def forward(self, activation: Tensor) -> Tensor:
        made = self.project(self.depthwise(self.expand(activation)))
        return activation + made if self.shortcut else made


class MobileNetV2(nn.Module):
    """Input (N, 3, R, R), output (N, `classes`) logits.  Sandler, Howard, Zhu, Zhmoginov, Chen, 2018."""

    def __init__(
        self, classes: int, width: float, depth: float, resolution: int | None, stride: int, dropout: float
    ) -> None:
        super().__init__()
        self.resolution = resolution
        first, *steps = strides_at(STRIDES, stride)
        into = channels_at(FIRST, width)
        self.stem = normed_convolution(3, into, 3, first)
        blocks: list[nn.Module] = []
        for (expansion, base, repeats), step in zip(STAGES, steps, strict=True):
            out = channels_at(base, width)
            for number in range(repeats_at(repeats, depth)):
                blocks.append(InvertedResidual(into, out, 1 if number else step, expansion))
                into = out
        self.blocks = nn.Sequential(*blocks)
        last = channels_at(LAST, max(1.0, width))
        self.head = normed_convolution(into, last, 1)
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.head(self.blocks(self.stem(at_resolution(images, self.resolution))))
        return self.linear(self.dropout(activation.mean((2, 3))))


def mobilenet_v2(
    classes: int = 1000, width: float = 1.0, depth: float = 1.0, resolution: int | None = None, stride: int = 32,
    dropout: float = 0.2,
) -> MobileNetV2:  # fmt: skip
    """Return MobileNet V2: 3.5 M parameters and 300 M multiply-adds at width 1 on 224 x 224.

    `width` scales the channels (the last ones only above 1), `depth` the number of blocks. With `resolution`, images of
    another size are resized first. `stride`: how many times smaller the last maps are than the input, 32 for ImageNet; 8 or
    4 for 32 x 32 pictures. Raises BadValue for sizes out of range.
    """
    check_scale("mobilenet_v2", width, depth, resolution, stride)
    return MobileNetV2(classes, width, depth, resolution, stride, dropout)
