"""SSD and SSDLite: a detector on any backbone, which answers at each place of its maps for several boxes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cortado.boxes.anchors import ANCHORS, AnchorGrid, Anchors
from cortado.errors import BadNetwork
from cortado.nets.backbone import level_shapes, picture_for


def lite_head(channels: int, numbers: int) -> nn.Module:
    """Return a 3 x 3 depthwise convolution with norm and ReLU6, and a 1 x 1 convolution.  Sandler et al., 2018, section 6.2."""
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(channels), nn.ReLU6(), nn.Conv2d(channels, numbers, 1))


def dense_head(channels: int, numbers: int) -> nn.Module:
    """Return a 3 x 3 convolution.  Liu et al., 2016."""
    return nn.Sequential(nn.Conv2d(channels, numbers, 3, padding=1))


class Ssd(nn.Module):
    """A single-shot detector.  Liu et al., 2016.

    >>> network = Ssd(Backbone(resnet, ["layer2", "layer3"]), classes=3, anchors=Anchors((8, 16), ((20,), (40, 80))))

    `backbone` returns one map per level of `anchors`. `lite` heads are depthwise separable (SSDLite), others dense. Input
    (N, 3, H, W), output a pair: logits (N, places, 1 + `classes`), the background first, and offsets (N, places, 4) from the
    anchors. Raises BadNetwork where the backbone has another number of levels.
    """

    def __init__(self, backbone: nn.Module, classes: int, anchors: Anchors = ANCHORS, lite: bool = True) -> None:
        super().__init__()
        self.backbone, self.numbers, self.anchors = backbone, 1 + classes, anchors
        levels = level_shapes(backbone, picture_for(backbone))
        if len(levels) != len(anchors.counts):
            raise BadNetwork(
                f"ssd: the backbone has {len(levels)} levels and the anchors {len(anchors.counts)}. Give anchors with one stride "
                "and one tuple of sizes for each map of the backbone."
            )
        head = lite_head if lite else dense_head
        pairs = [(channels, count) for (channels, _, _), count in zip(levels, anchors.counts, strict=True)]
        self.classes = nn.ModuleList([head(channels, count * self.numbers) for channels, count in pairs])
        self.offsets = nn.ModuleList([head(channels, count * 4) for channels, count in pairs])

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.backbone(pictures)
        logits = [by_place(head(one), self.numbers) for head, one in zip(self.classes, maps, strict=True)]
        offsets = [by_place(head(one), 4) for head, one in zip(self.offsets, maps, strict=True)]
        return torch.cat(logits, 1), torch.cat(offsets, 1)

    def grid(self, height: int, width: int) -> AnchorGrid:
        """Return the anchors for pictures of a size."""
        shapes: Sequence[tuple[int, int, int]] = level_shapes(self.backbone, picture_for(self.backbone, height, width))
        return self.anchors.over([(tall, wide) for _, tall, wide in shapes])


def by_place(answers: Tensor, numbers: int) -> Tensor:
    """Return (N, H * W * anchors, numbers) from a head's map (N, anchors * numbers, H, W)."""
    return answers.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, numbers))
