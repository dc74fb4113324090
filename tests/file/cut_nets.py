"""Networks whose cuts change more than the sizes of tensors, and what is cut of each."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.nets.resnet import CifarResNet
from cortado.network.coupling.cut import cut
from cortado.network.coupling.find import find_groups
from cortado.parts.blocks.bypass import Bypass


class Attention(nn.Module):
    """Attention that keeps its number of heads and their width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, activation: Tensor) -> Tensor:
        batch, steps, _ = activation.shape
        inner = self.num_heads * self.head_dim
        query, key, value = self.qkv(activation).split(inner, dim=2)
        shape = (batch, steps, self.num_heads, self.head_dim)
        query, key, value = (part.view(shape).transpose(1, 2) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, steps, inner))


class Block(nn.Module):
    """A transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 4)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, activation: Tensor, mask: Tensor | None = None) -> Tensor:
        activation = activation + self.attention(self.first(activation))
        return activation + self.mlp(self.second(activation))


class Encoder(nn.Module):
    """Three blocks over a sequence, with positions that are not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 16)
        self.register_buffer("places", torch.linspace(-1, 1, 5 * 16).view(5, 16), persistent=False)
        self.blocks = nn.ModuleList([Block(16) for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, activation: Tensor) -> Tensor:
        activation = self.enter(activation) + self.places
        for block in self.blocks:
            activation = block(activation, mask=None)
        return self.head(self.norm(activation).mean(1))


class Split(nn.Module):
    """A linear layer whose output is split in sizes that the module keeps in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [6, 10]
        self.enter, self.one, self.two = nn.Linear(6, 16), nn.Linear(6, 4), nn.Linear(10, 4)

    def forward(self, activation: Tensor) -> Tensor:
        one, two = self.enter(activation).relu().split(self.sizes, dim=1)
        return self.one(one) + self.two(two)


class Recurrent(nn.Module):
    """An LSTM and its reader."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, hidden, 2, batch_first=True), nn.Linear(hidden, 4)

    def forward(self, activation: Tensor) -> Tensor:
        return self.head(self.lstm(activation)[0][:, -1])


def convolutions(middle: Callable[[], nn.Module], width: int = 8) -> nn.Module:
    """Something between convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), middle(), nn.ReLU(), nn.Conv2d(width, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attention": (Encoder, (2, 5, 6)),
    "residual": (lambda: CifarResNet(2, width=8), (2, 3, 16, 16)),
    "depthwise": (lambda: convolutions(lambda: nn.Conv2d(8, 8, 3, groups=8)), (2, 3, 9, 9)),
    "multiplied": (lambda: convolutions(lambda: nn.Conv2d(8, 16, 3, groups=8), 16), (2, 3, 9, 9)),
    "grouped": (lambda: convolutions(lambda: nn.Conv2d(8, 8, 3, groups=4)), (2, 3, 9, 9)),
    "group_norm": (lambda: convolutions(lambda: nn.GroupNorm(4, 8)), (2, 3, 9, 9)),
    "bare_group_norm": (lambda: convolutions(lambda: nn.GroupNorm(4, 8, affine=False)), (2, 3, 9, 9)),
    "split": (Split, (3, 6)),
}
"""Cut by the groups that are found in them."""
SMALLER: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...]]] = {
    "option_a": (lambda: CifarResNet(2, width=8), lambda: CifarResNet(2, width=6), (2, 3, 16, 16)),
    "recurrent": (Recurrent, lambda: Recurrent(5), (2, 5, 6)),
    "attention_layer": (
        lambda: nn.TransformerEncoderLayer(16, 4, 24, batch_first=True),
        lambda: nn.TransformerEncoderLayer(6, 3, 5, batch_first=True),
        (2, 5, 6),
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 8, 3), nn.InstanceNorm2d(8), nn.ConvTranspose2d(8, 8, 3, groups=8)),
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3), nn.InstanceNorm2d(6), nn.ConvTranspose2d(6, 6, 3, groups=6)),
        (2, 4, 5, 5),
    ),
}
"""Made by hand: the network, the same with less of everything, and an input of the smaller one."""


ALL_NETS = (*NETS, *SMALLER)


def plain_net(name: str) -> nn.Module:
    """The network, the same at every call."""
    return made(NETS[name][0] if name in NETS else SMALLER[name][0])


def made(maker: Callable[[], nn.Module]) -> nn.Module:
    """What a maker makes, in eval mode, always with the same values."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        return maker().eval()


def example_of(name: str) -> Tensor:
    """An input of the cut network."""
    shape = NETS[name][1] if name in NETS else SMALLER[name][2]
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def cut_net(name: str, share: float = 0.3) -> nn.Module:
    """The network without this share of the units of every group that can be cut, or the smaller one made by hand."""
    if name in SMALLER:
        return made(SMALLER[name][1])
    network = plain_net(name)
    groups = find_groups(network, example_of(name))
    keeps = {group: torch.arange(group.count)[-max(1, round(group.count * (1 - share))) :] for group in groups.free}
    cut(network, groups, keeps)
    return network


def without_blocks(name: str, *paths: str) -> nn.Module:
    """The network with these modules put out."""
    network = plain_net(name)
    for path in paths:
        parent, _, last = path.rpartition(".")
        setattr(network.get_submodule(parent), last, Bypass())
    return network
