"""MobileNet V1: depthwise and 1 x 1 convolutions."""

from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.nets.scaled import STRIDES, strides_at

# output channels, stride of the depthwise convolution
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class SeparableBlock(nn.Module):
    """A 3 x 3 depthwise convolution, then a 1 x 1 convolution."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, activation: Tensor) -> Tensor:
        activation = functional.relu(self.bn1(self.depthwise(activation)))
        return functional.relu(self.bn2(self.pointwise(activation)))


class MobileNet(nn.Module):
    """Thirteen separable blocks.  Howard et al., 2017.

    Input (N, 3, `resolution`, `resolution`), output (N, `classes`) logits. `width` scales all channel counts. The
    weights do not depend on the resolution, so the network accepts any size.
    """

    def __init__(self, classes: int = 1000, width: float = 1.0, resolution: int = 224, stride: int = 32) -> None:
        super().__init__()
        self.resolution = resolution
        step, *steps = strides_at((2, *(one for _, one in BLOCKS)), stride)
        first, *widths = (max(1, round(channels * width)) for channels in (32, *(out for out, _ in BLOCKS)))
        self.conv = nn.Conv2d(3, first, 3, stride=step, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(first)
        pairs = zip((first, *widths[:-1]), widths, steps, strict=True)
        self.blocks = nn.Sequential(*(SeparableBlock(into, out, one) for into, out, one in pairs))
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        activation = functional.relu(self.bn(self.conv(images)))
        return self.linear(self.blocks(activation).mean((2, 3)))


def mobilenet(classes: int = 1000, width: float = 1.0, resolution: int = 224, stride: int = 32) -> MobileNet:
    """Return MobileNet V1: 4.2 M parameters and 569 M multiply-adds at width 1 and resolution 224.

    `stride`: how many times smaller the last maps are than the input, 32 for ImageNet; 8 or 4 for 32 x 32 pictures. Raises
    BadValue unless width is above 0, resolution at least 32, and stride a power of 2 up to 32.
    """
    if width <= 0 or resolution < 32 or stride not in STRIDES:
        raise BadValue(
            f"mobilenet: width must be above 0, resolution 32 or more and stride one of {', '.join(map(str, STRIDES))}, "
            f"got {width}, {resolution} and {stride}. The paper's range is width=0.25, resolution=128 to width=1.0, "
            "resolution=224."
        )
    return MobileNet(classes, width, resolution, stride)
