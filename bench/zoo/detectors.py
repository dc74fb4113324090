"""Detectors of all families, small and written here in plain PyTorch: their heads are what cutting tools stumble over."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.zoo.entry import Entry
from cortado.nets.catalog import by_name

IMAGE = (3, 64, 64)
CLASSES, ANCHORS = 3, 3
HALVES = ("chunk", "split", "slice")


def step(into: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with norm and activation."""
    layer = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.SiLU())


class Levels(nn.Module):
    """A backbone with maps of 12, 16 and 24 channels at strides 4, 8 and 16, with shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = step(3, 8, 3, 2)
        self.first, self.second, self.third = step(8, 12, 3, 2), step(12, 16, 3, 2), step(16, 24, 3, 2)
        self.same = nn.ModuleList([step(12, 12), step(16, 16), step(24, 24)])

    def forward(self, pictures: Tensor) -> list[Tensor]:
        maps, last = [], self.stem(pictures)
        for down, same in zip((self.first, self.second, self.third), self.same, strict=True):
            last = down(last)
            last = last + same(last)
            maps.append(last)
        return maps


WIDTHS = (12, 16, 24)


def lite(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(step(channels, channels, groups=channels), nn.Conv2d(channels, out, 1))


class SsdLike(nn.Module):
    """SSD heads by `lite` or dense convolutions; answers ordered by `how`: view and permute, flatten, or left as six maps."""

    def __init__(self, head: Callable[[int, int], nn.Module], how: str) -> None:
        super().__init__()
        self.body, self.how = Levels(), how
        self.scores = nn.ModuleList([head(width, ANCHORS * (CLASSES + 1)) for width in WIDTHS])
        self.boxes = nn.ModuleList([head(width, ANCHORS * 4) for width in WIDTHS])

    def ordered(self, answers: Tensor, numbers: int) -> Tensor:
        if self.how == "flatten":
            return answers.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (-1, numbers)).flatten(1, 2)
        count, _, height, width = answers.shape
        answers = answers.view(count, -1, numbers, height, width).permute(0, 3, 4, 1, 2)
        return answers.reshape(count, -1, numbers)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        maps = self.body(pictures)
        scores = [head(one) for head, one in zip(self.scores, maps, strict=True)]
        boxes = [head(one) for head, one in zip(self.boxes, maps, strict=True)]
        if self.how == "maps":
            return (*scores, *boxes)
        ordered = [self.ordered(one, CLASSES + 1) for one in scores], [self.ordered(one, 4) for one in boxes]
        return torch.cat(ordered[0], 1), torch.cat(ordered[1], 1)


class SplitBlock(nn.Module):
    """A C2f block whose halves are taken by chunk, split or slices."""

    def __init__(self, into: int, out: int, how: str) -> None:
        super().__init__()
        self.how, self.half = how, out // 2
        self.enter, self.leave = step(into, out, 1), step(2 * out, out, 1)
        self.blocks = nn.ModuleList(
            [nn.Sequential(step(out // 2, out // 2), step(out // 2, out // 2)) for _ in range(2)]
        )

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.enter(maps)
        if self.how == "chunk":
            parts = list(maps.chunk(2, 1))
        elif self.how == "split":
            parts = list(maps.split((self.half, self.half), 1))
        else:
            parts = [maps[:, : self.half], maps[:, self.half :]]
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class YoloLike(nn.Module):
    """C2f blocks, pooled context, a pyramid both ways and heads with distributed distances, or `plain` ones."""

    def __init__(self, how: str, plain: bool = False, bins: int = 8) -> None:
        super().__init__()
        self.stem, self.plain, self.bins = nn.Sequential(step(3, 8, 3, 2), step(8, 16, 3, 2)), plain, bins
        self.fine, self.coarse = SplitBlock(16, 16, how), nn.Sequential(step(16, 32, 3, 2), SplitBlock(32, 32, how))
        self.narrow, self.wide, self.pool = step(32, 16, 1), step(64, 32, 1), nn.MaxPool2d(5, 1, 2)
        self.up, self.down = SplitBlock(48, 16, how), SplitBlock(48, 32, how)
        self.stride = step(16, 16, 3, 2)
        sides = 4 if plain else 4 * bins
        self.scores = nn.ModuleList(
            [nn.Sequential(step(width, width), nn.Conv2d(width, CLASSES, 1)) for width in (16, 32)]
        )
        self.boxes = nn.ModuleList(
            [nn.Sequential(step(width, width), nn.Conv2d(width, sides, 1)) for width in (16, 32)]
        )
        self.mean = nn.Conv2d(bins, 1, 1, bias=False)
        self.mean.weight.data.copy_(torch.arange(float(bins)).view(1, bins, 1, 1))
        self.mean.requires_grad_(False)

    def context(self, maps: Tensor) -> Tensor:
        parts = [self.narrow(maps)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.wide(torch.cat(parts, 1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(self.stem(pictures))
        coarse = self.context(self.coarse(fine))
        up = self.up(torch.cat([functional.interpolate(coarse, scale_factor=2.0), fine], 1))
        maps = [up, self.down(torch.cat([self.stride(up), coarse], 1))]
        scores = torch.cat([head(one).flatten(2) for head, one in zip(self.scores, maps, strict=True)], 2)
        sides = torch.cat([head(one).flatten(2) for head, one in zip(self.boxes, maps, strict=True)], 2)
        if not self.plain:
            shares = sides.unflatten(1, (4, self.bins)).transpose(1, 2).softmax(1)
            sides = self.mean(shares).squeeze(1)
        return scores.sigmoid(), sides


class Pyramid(nn.Module):
    """A feature pyramid from coarse to fine: 1 x 1 convolutions to one width, sums with enlarged maps."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body = Levels()
        self.sides = nn.ModuleList([nn.Conv2d(one, width, 1) for one in WIDTHS])
        self.smooth = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in WIDTHS])

    def forward(self, pictures: Tensor) -> list[Tensor]:
        maps = [side(one) for side, one in zip(self.sides, self.body(pictures), strict=True)]
        for level in (1, 0):
            maps[level] = maps[level] + functional.interpolate(maps[level + 1], size=maps[level].shape[-2:])
        return [smooth(one) for smooth, one in zip(self.smooth, maps, strict=True)]


def tower(width: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    parts = [[nn.Conv2d(width, width, 3, padding=1), norm(width), nn.ReLU()] for _ in range(2)]
    return nn.Sequential(*[layer for part in parts for layer in part])


class RetinaLike(nn.Module):
    """One head for all levels of a pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid, self.first, self.second = (
            Pyramid(),
            tower(16, lambda _: nn.Identity()),
            tower(16, lambda _: nn.Identity()),
        )
        self.scores, self.boxes = (
            nn.Conv2d(16, ANCHORS * CLASSES, 3, padding=1),
            nn.Conv2d(16, ANCHORS * 4, 3, padding=1),
        )

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = [], []
        for maps in self.pyramid(pictures):
            count, _, height, width = maps.shape
            one = self.scores(self.first(maps)).view(count, ANCHORS, CLASSES, height, width)
            scores.append(one.permute(0, 3, 4, 1, 2).reshape(count, height * width * ANCHORS, CLASSES))
            boxes.append(self.boxes(self.second(maps)).permute(0, 2, 3, 1).reshape(count, -1, 4))
        return torch.cat(scores, 1), torch.cat(boxes, 1)


class FcosLike(nn.Module):
    """One head with group norms for all levels, a learned scale for each, and centerness beside the boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = Pyramid()
        self.first, self.second = (tower(16, lambda width: nn.GroupNorm(4, width)) for _ in range(2))
        self.scores, self.boxes, self.centre = (nn.Conv2d(16, out, 3, padding=1) for out in (CLASSES, 4, 1))
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(1)) for _ in WIDTHS])

    def forward(self, pictures: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        found = []
        for scale, maps in zip(self.scales, self.pyramid(pictures), strict=True):
            sides = self.second(maps)
            found.append((self.scores(self.first(maps)), (0.1 * self.boxes(sides) * scale).exp(), self.centre(sides)))
        return found


class ProposalLike(nn.Module):
    """A backbone with pyramid and the head that proposes regions (Faster R-CNN): the part with convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid, self.shared = Pyramid(), nn.Conv2d(16, 16, 3, padding=1)
        self.objects, self.deltas = nn.Conv2d(16, ANCHORS, 1), nn.Conv2d(16, 4 * ANCHORS, 1)

    def forward(self, pictures: Tensor) -> dict[str, list[Tensor]]:
        maps = [self.shared(one).relu() for one in self.pyramid(pictures)]
        return {"objects": [self.objects(one) for one in maps], "deltas": [self.deltas(one) for one in maps]}


class TransformerLike(nn.Module):
    """A backbone, a transformer over its places and learned queries, heads of classes and boxes (DETR)."""

    def __init__(self, width: int = 24, queries: int = 6) -> None:
        super().__init__()
        self.body, self.narrow = Levels(), nn.Conv2d(24, width, 1)
        self.places, self.queries = (
            nn.Parameter(torch.randn(1, 16, width)),
            nn.Parameter(torch.randn(1, queries, width)),
        )
        self.transformer = nn.Transformer(width, 4, 2, 2, 32, dropout=0.0, batch_first=True)
        self.scores = nn.Linear(width, CLASSES + 1)
        self.boxes = nn.Sequential(nn.Linear(width, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        places = self.narrow(self.body(pictures)[-1]).flatten(2).transpose(1, 2) + self.places
        found = self.transformer(places, self.queries.expand(pictures.shape[0], -1, -1))
        return self.scores(found), self.boxes(found).sigmoid()


class CentreLike(nn.Module):
    """Transposed convolutions up to stride 4, then heads for a map of centres, sizes and offsets (CenterNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Levels()
        pairs = ((24, 16), (16, 16))
        self.up = nn.Sequential(
            *[
                layer
                for into, out in pairs
                for layer in (nn.ConvTranspose2d(into, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
            ]
        )
        heads = {"centres": CLASSES, "sizes": 2, "offsets": 2}
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, out, 1))
                for name, out in heads.items()
            }
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        maps = self.up(self.body(pictures)[-1])
        return {name: head(maps) for name, head in self.heads.items()}


class WeightedPyramid(nn.Module):
    """Sums of maps with learned positive weights, up and down, through depthwise convolutions (EfficientDet)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body, self.sides = Levels(), nn.ModuleList([step(one, width, 1) for one in WIDTHS])
        self.weights = nn.Parameter(torch.rand(4, 2) + 0.5)
        self.joined = nn.ModuleList([lite(width, width) for _ in range(4)])
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = lite(width, ANCHORS * (CLASSES + 4))

    def mixed(self, number: int, first: Tensor, second: Tensor) -> Tensor:
        shares = self.weights[number].relu()
        shares = shares / (shares.sum() + 1e-4)
        return self.joined[number](functional.silu(shares[0] * first + shares[1] * second))

    def forward(self, pictures: Tensor) -> Tensor:
        fine, middle, coarse = (side(one) for side, one in zip(self.sides, self.body(pictures), strict=True))
        middle = self.mixed(0, middle, functional.interpolate(coarse, scale_factor=2.0))
        fine = self.mixed(1, fine, functional.interpolate(middle, scale_factor=2.0))
        middle = self.mixed(2, middle, self.pool(fine))
        coarse = self.mixed(3, coarse, self.pool(middle))
        answers = [self.head(one).flatten(2).transpose(1, 2) for one in (fine, middle, coarse)]
        return torch.cat(answers, 1)


class AnchoredYolo(nn.Module):
    """Cross-stage blocks and answers (N, anchors, H, W, numbers), as YOLO with anchors gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Levels()
        self.left, self.right = (
            nn.ModuleList([step(one, 8, 1) for one in WIDTHS]),
            nn.ModuleList([step(one, 8, 1) for one in WIDTHS]),
        )
        self.inner, self.join = (
            nn.ModuleList([step(8, 8) for _ in WIDTHS]),
            nn.ModuleList([step(16, 16, 1) for _ in WIDTHS]),
        )
        self.heads = nn.ModuleList([nn.Conv2d(16, ANCHORS * (CLASSES + 5), 1) for _ in WIDTHS])

    def forward(self, pictures: Tensor) -> list[Tensor]:
        found = []
        for level, maps in enumerate(self.body(pictures)):
            half = self.left[level](maps)
            both = torch.cat([half + self.inner[level](half), self.right[level](maps)], 1)
            answers = self.heads[level](self.join[level](both))
            count, _, height, width = answers.shape
            answers = answers.view(count, ANCHORS, CLASSES + 5, height, width).permute(0, 1, 3, 4, 2).contiguous()
            found.append(torch.cat([answers[..., :2].sigmoid(), answers[..., 2:]], -1))
        return found


def dense(channels: int, out: int) -> nn.Module:
    return nn.Conv2d(channels, out, 3, padding=1)


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "ssdlite, view and permute": lambda: SsdLike(lite, "view"),
    "ssdlite, flatten and unflatten": lambda: SsdLike(lite, "flatten"),
    "ssd, dense heads": lambda: SsdLike(dense, "flatten"),
    "ssdlite, six maps": lambda: SsdLike(lite, "maps"),
    **{f"yolo, {how}": lambda how=how: YoloLike(how) for how in HALVES},
    "yolo, plain distances": lambda: YoloLike("chunk", plain=True),
    "yolo, anchors": AnchoredYolo,
    "retinanet": RetinaLike,
    "fcos": FcosLike,
    "faster r-cnn, proposals": ProposalLike,
    "detr": TransformerLike,
    "centernet": CentreLike,
    "efficientdet": WeightedPyramid,
    "cortado ssdlite": lambda: by_name("ssdlite_mobilenet_v1"),
    "cortado ssd": lambda: by_name("ssd_mobilenet_v1"),
    "cortado ssdlite on mobilenet v2": lambda: by_name("ssdlite_mobilenet_v2"),
    "cortado yolo": lambda: by_name("yolo", width=8),
}


def entries() -> list[Entry]:
    """All detectors as entries of the zoo, each with pictures of 64 x 64 pixels."""
    return [Entry(name, "detectors", make, (IMAGE,)) for name, make in DETECTORS.items()]
