"""Llama: a decoder of language with rotary positions, grouped queries and gated feed-forwards."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.nets.weights import load_arrays, read_arrays, weights_path


class GroupedAttention(nn.Module):
    """Causal attention in which several query heads share keys and values.  Ainslie et al., 2023."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.heads, self.shared, self.head_width = heads, shared, width // heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, shared * self.head_width, bias=False)
        self.value = nn.Linear(width, shared * self.head_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, read: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        count, time, _ = read.shape
        query, key, value = (
            layer(read).view(count, time, -1, self.head_width).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        query, key = rotated(query, cosines, sines), rotated(key, cosines, sines)
        each = self.heads // self.shared
        key, value = key.repeat_interleave(each, 1), value.repeat_interleave(each, 1)
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(found.transpose(1, 2).reshape(count, time, -1))


def rotated(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Return (N, heads, time, width) with each pair of neighbours turned by its angle.  Su et al., 2021."""
    even, odd = values[..., 0::2], values[..., 1::2]
    return torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), -1).flatten(-2)


class DecoderLayer(nn.Module):
    """Attention, then a feed-forward gated by SiLU (Shazeer, 2020), each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, shared: int, inner: int) -> None:
        super().__init__()
        self.before, self.between = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.attention = GroupedAttention(width, heads, shared)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        values = values + self.attention(self.before(values), cosines, sines)
        read = self.between(values)
        return values + self.down(functional.silu(self.gate(read)) * self.up(read))


class Llama(nn.Module):
    """A decoder whose embedding and head share one matrix.  Touvron et al., 2023.

    Input (N, time) numbers of tokens, time up to `positions`; output (N, time, words) logits of each next token.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(
        self, words: int, width: int, layers: int, heads: int, shared: int, inner: int, positions: int, base: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, shared, inner) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(width, eps=1e-5), nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight
        rates = base ** (-torch.arange(0, width // heads, 2) / (width // heads))
        angles = torch.outer(torch.arange(float(positions)), rates)
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        values, time = self.embedding(tokens), tokens.shape[1]
        for layer in self.layers:
            values = layer(values, self.cosines[:time], self.sines[:time])
        return self.head(self.norm(values))


def llama(
    words: int = 512,
    width: int = 64,
    layers: int = 4,
    heads: int = 4,
    shared: int | None = None,
    inner: int = 172,
    positions: int = 128,
    base: float = 10000.0,
) -> Llama:
    """Return a decoder with fresh weights, by default of 0.23 M parameters.

    `shared`: heads of keys and values, by default as many as of queries. `base` of the rotary positions. Raises BadValue for
    heads that do not divide the width, or shared ones that do not divide the heads.
    """
    shared = heads if shared is None else shared
    if width % (2 * heads) or heads % shared:
        raise BadValue(
            f"llama: {heads} heads need a width that is a multiple of {2 * heads}, and a number of shared heads that divides "
            f"them, got width {width} and {shared} shared heads. Change one of them."
        )
    return Llama(words, width, layers, heads, shared, inner, positions, base)


PARTS = {"wq": "attention.query", "wk": "attention.key", "wv": "attention.value", "wo": "attention.out"}
PARTS |= {"w1": "gate", "w2": "down", "w3": "up", "attention_norm": "before", "ffn_norm": "between"}


def dreams_llama(weights: str | Path | bool | None = None) -> Llama:
    """Return a decoder of 0.23 M parameters over 512 pieces of words, trained on made-up dreams.

    `weights` is the path of an .npz, or True for $CORTADO_DATA/weights/dreams_llama_260k.npz; None for fresh weights.
    Raises BadValue for a missing file, BadNetwork if it does not fit.
    """
    network = llama()
    if weights is not None and weights is not False:
        path = weights_path(weights, "dreams_llama_260k.npz")
        load_arrays(network, as_ours(read_arrays(path)), str(path))
    return network


def as_ours(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the arrays of the file under this network's names."""
    found = {"norm.weight": arrays["norm.weight"]} if "norm.weight" in arrays else {}
    for name, array in arrays.items():
        owner, _, part = name.removesuffix(".weight").rpartition(".")
        if part in PARTS:
            found[f"{owner}.{PARTS[part]}.weight"] = array
        elif part == "tok_embeddings":
            found["embedding.weight"] = found["head.weight"] = array
    return found
