"""Networks for pictures written for the zoo, each small and each with one habit that ties channels in its own way."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def block(channels_in: int, channels_out: int, **options: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


class Headed(nn.Module):
    """A body that gives pictures of some channels, then their mean, then a linear layer."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(channels, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))


class UNet(nn.Module):
    """Down and up again by transposed convolutions, with what was there on the way down put beside."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        sizes = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(block(a, b) for a, b in pairwise([3, *sizes]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, 2) for size in reversed(sizes[:-1]))
        self.merge = nn.ModuleList(block(2 * size, size) for size in reversed(sizes[:-1]))
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        for step, part in enumerate(self.down):
            images = part(images if step == 0 else functional.max_pool2d(images, 2))
            seen.append(images)
        for up, merge, beside in zip(self.up, self.merge, reversed(seen[:-1]), strict=True):
            images = merge(torch.cat((up(images), beside), 1))
        return self.last(images)


class Shuffled(nn.Module):
    """Two grouped convolutions with a channel shuffle between.  Zhang et al., 2018."""

    def __init__(self, channels: int = 24, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.first = block(channels, channels, groups=groups)
        self.second = block(channels, channels, groups=groups)

    def forward(self, activation: Tensor) -> Tensor:
        out = self.first(activation)
        count, channels, height, width = out.shape
        out = out.view(count, self.groups, channels // self.groups, height, width).transpose(1, 2)
        return activation + self.second(out.reshape(count, channels, height, width))


class Halves(nn.Module):
    """Half of the channels worked on, then put beside the other half and mixed by a shuffle of two."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.work = block(channels // 2, channels // 2)

    def forward(self, activation: Tensor) -> Tensor:
        left, right = activation.chunk(2, 1)
        both = torch.stack((left, self.work(right)), 2)
        return both.flatten(1, 2)


class Split(nn.Module):
    """Three unequal parts by split, each with its own kernel, put together again."""

    def __init__(self, parts: tuple[int, ...] = (8, 6, 10)) -> None:
        super().__init__()
        self.parts = parts
        self.before = block(3, sum(parts))
        self.convs = nn.ModuleList(nn.Conv2d(size, size, 2 * at + 1, padding=at) for at, size in enumerate(parts))

    def forward(self, images: Tensor) -> Tensor:
        pieces = torch.split(self.before(images), self.parts, 1)
        return torch.cat([conv(piece) for conv, piece in zip(self.convs, pieces, strict=True)], 1)


class Squeezed(nn.Module):
    """Squeeze and excitation: channels weighted by what all of them say.  Hu, Shen, Sun, 2018."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.work = block(channels, channels)
        self.squeeze, self.excite = nn.Linear(channels, channels // 4), nn.Linear(channels // 4, channels)

    def forward(self, activation: Tensor) -> Tensor:
        out = self.work(activation)
        weights = self.excite(functional.relu(self.squeeze(out.mean((2, 3))))).sigmoid()
        return activation + out * weights[:, :, None, None]


class Scaled(nn.Module):
    """A residual branch under a bare parameter: one gain a channel.  Touvron et al., 2021."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.widen, self.narrow = nn.Conv2d(channels, 4 * channels, 1), nn.Conv2d(4 * channels, channels, 1)
        self.scale = nn.Parameter(1e-6 * torch.ones(channels, 1, 1))

    def forward(self, activation: Tensor) -> Tensor:
        return activation + self.scale * self.narrow(functional.gelu(self.widen(self.spread(activation))))


class Multiplied(nn.Module):
    """Depthwise convolutions that make two channels of each."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.first = block(3, channels)
        self.twice = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels)
        self.last = block(2 * channels, 16)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(functional.relu(self.twice(self.first(images))))


class Looped(nn.Module):
    """One block run three times on its own output."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first, self.again, self.last = block(3, channels), block(channels, channels), block(channels, 24)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.first(images)
        for _ in range(3):
            activation = activation + self.again(activation)
        return self.last(activation)


class Gated(nn.Module):
    """One convolution makes values and gates, half each."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.both, self.out = nn.Conv2d(3, 2 * channels, 3, padding=1), nn.Conv2d(channels, 20, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return functional.relu(self.out(functional.glu(self.both(images), 1)))


class Grown(nn.Module):
    """Each layer reads all layers before it.  Huang et al., 2017."""

    def __init__(self, growth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(block(3 + growth * at, growth) for at in range(4))

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            images = torch.cat((images, layer(images)), 1)
        return images


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's matrices, turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 48), nn.Linear(48, 20)
        self.back = nn.Parameter(torch.zeros(48))
        self.out = nn.Parameter(torch.zeros(64))

    def forward(self, activation: Tensor) -> Tensor:
        code = functional.relu(self.second(functional.relu(self.first(activation))))
        wide = functional.relu(functional.linear(code, self.second.weight.t(), self.back))
        return functional.linear(wide, self.first.weight.t(), self.out)


class TwoEyes(nn.Module):
    """Two pictures through one encoder, their difference and product read together."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.eye = nn.Sequential(block(3, channels), nn.MaxPool2d(2), block(channels, 2 * channels))
        self.head = nn.Linear(4 * channels, 5)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        one, other = self.eye(left).mean((2, 3)), self.eye(right).mean((2, 3))
        return {"logits": self.head(torch.cat(((one - other).abs(), one * other), 1))}


class Upscaled(nn.Module):
    """Super-resolution: the last convolution's channels become pixels.  Shi et al., 2016."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, channels), block(channels, channels))
        self.wide, self.last = nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(functional.prelu(functional.pixel_shuffle(self.wide(self.body(images)), 2), self.slope()))

    def slope(self) -> Tensor:
        """A constant slope of the negative side."""
        return torch.full((1,), 0.2)


def fully_connected() -> nn.Module:
    """Flatten after convolutions, dropout, two linear layers."""
    convs = [block(3, 8), nn.MaxPool2d(2), block(8, 12), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*convs, nn.Linear(12 * 16, 40), nn.ReLU(), nn.Dropout(), nn.Linear(40, 10))


def group_normed() -> nn.Module:
    """Group norm, grouped convolution, PReLU by channel, instance norm."""
    layers = [nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.PReLU(16), nn.Conv2d(16, 24, 3, groups=2)]
    return Headed(nn.Sequential(*layers, nn.InstanceNorm2d(24, affine=True), nn.ELU(), nn.Conv2d(24, 20, 1)), 20)


def one_axis() -> nn.Module:
    """Sound: 1-d convolutions, one transposed."""
    layers = [nn.Conv1d(4, 16, 5), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 24, 3, 2), nn.GELU()]
    return nn.Sequential(*layers, nn.ConvTranspose1d(24, 12, 4, 2), nn.Tanh(), nn.Conv1d(12, 2, 1))


def three_axes() -> nn.Module:
    """Video: 3-d convolutions."""
    layers = [nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2)]
    end = [nn.Conv3d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 7)]
    return nn.Sequential(*layers, *end)


def generator() -> nn.Module:
    """Pictures from noise by transposed convolutions, one of them grouped."""
    layers = [nn.Linear(20, 24 * 4), nn.Unflatten(1, (24, 2, 2)), nn.ConvTranspose2d(24, 16, 4, 2, 1)]
    middle = [nn.BatchNorm2d(16), nn.ReLU(), nn.ConvTranspose2d(16, 12, 4, 2, 1, groups=2), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, *middle, nn.ConvTranspose2d(12, 3, 4, 2, 1), nn.Tanh())


def residual(*parts: nn.Module, channels: int) -> nn.Module:
    """A first convolution, the parts, the head."""
    return Headed(nn.Sequential(block(3, channels), *parts), channels)
