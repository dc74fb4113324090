"""Six tiny networks of six sorts, each with a tiny task: what every law is tried on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.task.outputs.tokens import Tokens
from cortado.task.task import Data, Task

CLASSES = 4


class Residual(nn.Module):
    """A convolution, a residual block with batch norms, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.first = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        activation = torch.relu(self.norm(self.stem(images)))
        inner = torch.relu(self.first_norm(self.first(activation)))
        activation = torch.relu(activation + self.second_norm(self.second(inner)))
        return self.head(activation.mean((2, 3)))


class Depthwise(nn.Module):
    """A convolution, a depthwise and a pointwise one, as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


class Transformer(nn.Module):
    """The stock encoder layer between two linear layers, over a sequence (N, 5, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, sequence: Tensor) -> Tensor:
        return self.head(self.encoder(self.enter(sequence)).mean(1))


class Attending(nn.Module):
    """Attention with two heads, written by hand, and two linear layers, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.leave = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 6), nn.Linear(6, width)

    def forward(self, activation: Tensor) -> Tensor:
        normed = self.norm(activation)
        split = [
            one(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (self.query, self.key, self.value)
        ]
        mixed = nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        activation = activation + self.leave(mixed)
        return activation + self.narrow(torch.relu(self.widen(activation)))


class Attention(nn.Module):
    """Two blocks of attention between linear layers, over a sequence (N, 5, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.blocks = nn.Sequential(Attending(8, 2), Attending(8, 2))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, sequence: Tensor) -> Tensor:
        return self.head(self.blocks(self.enter(sequence)).mean(1))


class Recurrent(nn.Module):
    """An LSTM over a sequence (N, 5, 6) and a linear layer on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 7, batch_first=True)
        self.head = nn.Linear(7, CLASSES)

    def forward(self, sequence: Tensor) -> Tensor:
        return self.head(self.lstm(sequence)[0][:, -1])


class Signed(nn.Module):
    """Convolutions that read values of both signs, each behind a batch norm and beside a shortcut, for rounding to signs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.first, self.first_norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.second_norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.norm(self.stem(images))
        activation = activation + self.first_norm(self.first(nn.functional.hardtanh(activation)))
        activation = activation + self.second_norm(self.second(nn.functional.hardtanh(activation)))
        return self.head(activation.mean((2, 3)))


class Tied(nn.Module):
    """Two linear layers with one weight between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        activation = torch.relu(self.first(torch.relu(self.enter(inputs))))
        return self.head(torch.relu(self.second(activation)))


class Decoder(nn.Module):
    """The next token from the last two, (N, T) to (N, T, classes)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix, self.head = nn.Embedding(CLASSES, 8), nn.Linear(16, 12), nn.Linear(12, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.words(tokens)
        earlier = nn.functional.pad(words[:, :-1], (0, 0, 1, 0))
        return self.head(torch.relu(self.mix(torch.cat([words, earlier], -1))))


class Flat(nn.Module):
    """A convolution whose maps are flattened for two linear layers in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.Sequential(nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.flatten(self.body(images), 1))


class ResidualBlock(nn.Module):
    """Two convolutions of eight channels with norms, added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.second_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, activation: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(activation)))
        return torch.relu(activation + self.second_norm(self.second(inner)))


class Chained(nn.Module):
    """A convolution, two residual blocks that are modules, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, 8, 3, padding=1), nn.Sequential(ResidualBlock(), ResidualBlock())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.stem(images))).mean((2, 3)))


def mlp() -> nn.Module:
    """Two linear layers."""
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of tokens."""
    return nn.functional.cross_entropy(outputs.transpose(1, 2), targets)


@dataclass(frozen=True)
class TinyNet:
    """A network's maker, the shape of one input, and a pattern that takes some of its weights but not all."""

    name: str
    maker: Callable[[], nn.Module]
    shape: tuple[int, ...]
    some: str
    reads_tokens: bool = False

    def make(self) -> nn.Module:
        """The network, the same at every call, with batch norms that have seen something."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(5)
            network = self.maker()
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
                    module.weight.data.uniform_(0.5, 1.5)
                    module.bias.data.normal_(0, 0.1)
        return network.eval()

    def task(self) -> Task:
        """64 samples to train on, 32 to choose on, 32 for the test result; the class is in the sign of a few sums.

        The class of a token is the one after it.
        """
        generator = torch.Generator().manual_seed(11)
        inputs = torch.randn(128, *self.shape, generator=generator)
        flat = inputs.flatten(1)
        half = flat.shape[1] // 2
        targets = (flat[:, :half].sum(1) > 0).long() * 2 + (flat[:, half:].sum(1) > 0).long()
        how: dict[str, Any] = {}
        if self.reads_tokens:
            inputs = torch.randint(0, CLASSES, inputs.shape, generator=generator).cumsum(1) % CLASSES
            targets, how = inputs.roll(-1, 1), {"loss": token_loss, "outputs": Tokens()}
        parts = [Data(inputs[a:b], targets[a:b]) for a, b in ((0, 64), (64, 96), (96, 128))]
        return Task(*parts, batch=16, name=f"tiny {self.name}", **how)

    @property
    def example(self) -> Tensor:
        """Two inputs."""
        return self.task().example


TINY_NETS = (
    TinyNet("mlp", mlp, (12,), "0"),
    TinyNet("residual", Residual, (1, 6, 6), "first"),
    TinyNet("depthwise", Depthwise, (1, 6, 6), "body.[02]"),
    TinyNet("transformer", Transformer, (5, 6), "encoder*"),
    TinyNet("attention", Attention, (5, 6), "blocks.0.*"),
    TinyNet("recurrent", Recurrent, (5, 6), "lstm"),
)
SIGNED = TinyNet("signed", Signed, (1, 6, 6), "first")
"""Where methods that take signs of activations find some, and what they are tried on."""
TIED = TinyNet("tied", Tied, (12,), "first")
DECODER = TinyNet("decoder", Decoder, (8,), "mix", reads_tokens=True)
"""Where methods that write texts find some."""
FLAT = TinyNet("flat", Flat, (1, 6, 6), "head.0")
CHAINED = TinyNet("chained", Chained, (1, 6, 6), "blocks.0.first")
"""Where a linear layer reads flattened maps."""
BY_NAME = {net.name: net for net in (*TINY_NETS, SIGNED, TIED, DECODER, FLAT, CHAINED)}
