"""Extra levels: smaller and smaller maps after the last one of a backbone, for large objects.  Liu et al., 2016."""

from collections.abc import Sequence

from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.nets.backbone import level_shapes, picture_for


def extra_level(into: int, out: int, lite: bool) -> nn.Sequential:
    """Return a 1 x 1 convolution to half as many channels and a 3 x 3 one of stride 2, depthwise separable if `lite`."""
    half = out // 2
    second: list[nn.Module] = [nn.Conv2d(half, out, 3, 2, 1, bias=False)]
    if lite:
        depthwise = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        second = [depthwise, nn.BatchNorm2d(half), nn.ReLU6(), nn.Conv2d(half, out, 1, bias=False)]
    first = (nn.Conv2d(into, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU6())
    return nn.Sequential(*first, *second, nn.BatchNorm2d(out), nn.ReLU6())


class ExtraLevels(nn.Module):
    """A backbone with one more level of each of `widths` channels, each half as high and wide as the one before.

    >>> longer = ExtraLevels(backbone, widths=(512, 256))

    Raises BadNetwork for a width below 2.
    """

    def __init__(self, backbone: nn.Module, widths: Sequence[int] = (512, 256, 256, 128), lite: bool = True) -> None:
        super().__init__()
        if any(width < 2 for width in widths):
            raise BadNetwork(f"extra_levels: each level needs at least 2 channels, got {tuple(widths)}.")
        into, _, _ = level_shapes(backbone, picture_for(backbone))[-1]
        self.backbone = backbone
        pairs = zip([into, *widths[:-1]], widths, strict=True)
        self.extra = nn.ModuleList([extra_level(one, out, lite) for one, out in pairs])

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the maps of all levels for pictures (N, C, H, W)."""
        maps = list(self.backbone(pictures))
        for level in self.extra:
            maps.append(level(maps[-1]))
        return maps
