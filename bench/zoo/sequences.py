"""Networks for sequences written for the zoo: recurrent ones, encoders, decoders."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class RecurrentClassifier(nn.Module):
    """Words, a recurrent network of some kind, the mean over time, a linear layer."""

    def __init__(self, kind: type[nn.RNNBase], layers: int = 1, both_ways: bool = False, width: int = 24) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.reader = kind(16, width, layers, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(width * (1 + both_ways), 4)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.reader(self.words(tokens))
        return self.head(states.mean(1))


class StockEncoder(nn.Module):
    """nn.TransformerEncoder as it comes, between words and logits."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.words(tokens)).mean(1))


class StockTransformer(nn.Module):
    """nn.Transformer, encoder and decoder, on two sequences of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Transformer(32, 4, 1, 1, 48, batch_first=True)
        self.head = nn.Linear(32, 6)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.both(source, target))


class RootMeanSquare(nn.Module):
    """Divides by the root of the mean square.  Zhang, Sennrich, 2019."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, activation: Tensor) -> Tensor:
        return self.weight * activation * torch.rsqrt(activation.square().mean(-1, keepdim=True) + 1e-5)


def rotated(activation: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions.  `activation` (N, heads, time, head width).  Su et al., 2021."""
    left, right = activation.chunk(2, -1)
    return activation * cosines + torch.cat((-right, left), -1) * sines


class GroupedAttention(nn.Module):
    """Causal attention in which several query heads share keys and values.  Ainslie et al., 2023."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.heads, self.shared, self.head_width = heads, shared, width // heads
        self.query = nn.Linear(width, heads * self.head_width, bias=False)
        self.key = nn.Linear(width, shared * self.head_width, bias=False)
        self.value = nn.Linear(width, shared * self.head_width, bias=False)
        self.out = nn.Linear(heads * self.head_width, width, bias=False)

    def forward(self, activation: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        count, time, _ = activation.shape
        query = self.query(activation).view(count, time, self.heads, self.head_width).transpose(1, 2)
        key = self.key(activation).view(count, time, self.shared, self.head_width).transpose(1, 2)
        value = self.value(activation).view(count, time, self.shared, self.head_width).transpose(1, 2)
        query, key = rotated(query, cosines, sines), rotated(key, cosines, sines)
        times = self.heads // self.shared
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        out = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(out.transpose(1, 2).reshape(count, time, -1))


class DecoderLayer(nn.Module):
    """Grouped attention, then a feed-forward gated by SiLU."""

    def __init__(self, width: int, heads: int, shared: int, inner: int) -> None:
        super().__init__()
        self.before, self.attention = RootMeanSquare(width), GroupedAttention(width, heads, shared)
        self.between = RootMeanSquare(width)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, activation: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        activation = activation + self.attention(self.before(activation), cosines, sines)
        inner = self.between(activation)
        return activation + self.down(functional.silu(self.gate(inner)) * self.up(inner))


class LlamaLike(nn.Module):
    """A decoder in the manner of Llama: rotary positions, grouped queries, SwiGLU; words in and out are tied.

    Input (N, time) tokens, output (N, time, words) logits.  Touvron et al., 2023.
    """

    def __init__(self, words: int = 60, width: int = 32, heads: int = 4, shared: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, shared, 2 * width) for _ in range(layers))
        self.norm = RootMeanSquare(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight
        head_width = width // heads
        rates = 10000.0 ** (-torch.arange(0, head_width, 2) / head_width)
        angles = torch.outer(torch.arange(64.0), rates).repeat(1, 2)
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        activation = self.words(tokens)
        cosines, sines = self.cosines[: tokens.shape[1]], self.sines[: tokens.shape[1]]
        for layer in self.layers:
            activation = layer(activation, cosines, sines)
        return self.head(self.norm(activation))


class FusedAttention(nn.Module):
    """Queries, keys and values from one matrix; the product written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width // heads)
        self.all, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, activation: Tensor) -> Tensor:
        count, time, _ = activation.shape
        query, key, value = self.all(activation).reshape(count, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(-1, -2) * self.scale, -1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class GptLike(nn.Module):
    """Pre-norm blocks with learned positions and fused attention; words in and out are tied.  Radford et al., 2019."""

    def __init__(self, words: int = 60, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.attention = nn.ModuleList(FusedAttention(width, heads) for _ in range(layers))
        self.inner = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        activation = self.words(tokens) + self.places[:, : tokens.shape[1]]
        for step, (attention, inner) in enumerate(zip(self.attention, self.inner, strict=True)):
            activation = activation + attention(self.norms[2 * step](activation))
            activation = activation + inner(self.norms[2 * step + 1](activation))
        return self.head(self.norms[-1](activation))


class TextCnn(nn.Module):
    """Words, convolutions of three lengths side by side, the largest over time.  Kim, 2014."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 24)
        self.convs = nn.ModuleList(nn.Conv1d(24, 12, length) for length in (2, 3, 4))
        self.head = nn.Linear(36, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        activation = self.words(tokens).transpose(1, 2)
        return self.head(torch.cat([functional.relu(conv(activation)).amax(2) for conv in self.convs], 1))


class Translator(nn.Module):
    """A GRU reads, another writes, and looks at what was read by additive attention.  Bahdanau et al., 2015."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 16)
        self.reader = nn.GRU(16, width, batch_first=True, bidirectional=True)
        self.writer = nn.GRU(16, width, batch_first=True)
        self.keys, self.queries = nn.Linear(2 * width, 20), nn.Linear(width, 20)
        self.worth = nn.Linear(20, 1)
        self.head = nn.Linear(3 * width, 40)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        read, _ = self.reader(self.words(source))
        written, _ = self.writer(self.words(target))
        both = torch.tanh(self.queries(written)[:, :, None] + self.keys(read)[:, None])
        weights = self.worth(both).squeeze(-1).softmax(-1)
        return self.head(torch.cat((written, torch.einsum("nts,nsc->ntc", weights, read)), -1))


class Mixer(nn.Module):
    """Linear layers over places, then over channels.  Tolstikhin et al., 2021."""

    def __init__(self, places: int = 16, width: int = 24) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.over_places = nn.Sequential(nn.Linear(places, 20), nn.GELU(), nn.Linear(20, places))
        self.over_channels = nn.Sequential(nn.Linear(width, 40), nn.GELU(), nn.Linear(40, width))
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.first(images).flatten(2).transpose(1, 2)
        activation = activation + self.over_places(self.norms[0](activation).transpose(1, 2)).transpose(1, 2)
        activation = activation + self.over_channels(self.norms[1](activation))
        return self.head(activation.mean(1))
