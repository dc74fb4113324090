"""A small Llama (Touvron et al., 2023) with rotary places of neighbouring pairs, and an output matrix that is the embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, INNER, LAYERS, HEADS, PIECES = 64, 172, 4, 4, 512


class Block(nn.Module):
    """Attention with rotary places, and a gated layer, each behind a norm and added."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.w1, self.w3, self.w2 = (
            nn.Linear(*sizes, bias=False) for sizes in ((WIDTH, INNER), (WIDTH, INNER), (INNER, WIDTH))
        )
        self.attention_norm, self.ffn_norm = nn.RMSNorm(WIDTH, 1e-5), nn.RMSNorm(WIDTH, 1e-5)

    def forward(self, activation: Tensor, turns: Tensor) -> Tensor:
        normed = self.attention_norm(activation)
        query, key, value = (
            one(normed).unflatten(2, (HEADS, -1)).transpose(1, 2) for one in (self.wq, self.wk, self.wv)
        )
        mixed = functional.scaled_dot_product_attention(turned(query, turns), turned(key, turns), value, is_causal=True)
        activation = activation + self.wo(mixed.transpose(1, 2).flatten(2))
        normed = self.ffn_norm(activation)
        return activation + self.w2(functional.silu(self.w1(normed)) * self.w3(normed))


def turned(values: Tensor, turns: Tensor) -> Tensor:
    """Return values (N, heads, T, size) whose neighbouring pairs are turned by (T, size / 2) angles."""
    one, two = values.unflatten(3, (-1, 2)).unbind(4)
    sine, cosine = turns.sin(), turns.cos()
    return torch.stack([one * cosine - two * sine, one * sine + two * cosine], 4).flatten(3)


class Llama(nn.Module):
    """Pieces int64 (N, T) to logits of the next one (N, T, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings, self.norm = nn.Embedding(PIECES, WIDTH), nn.RMSNorm(WIDTH, 1e-5)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))

    def forward(self, pieces: Tensor) -> Tensor:
        angles = 10000.0 ** (-torch.arange(0, WIDTH // HEADS, 2, device=pieces.device) * HEADS / WIDTH)
        turns = torch.arange(pieces.shape[1], device=pieces.device)[:, None] * angles
        activation = self.tok_embeddings(pieces)
        for layer in self.layers:
            activation = layer(activation, turns)
        return functional.linear(self.norm(activation), self.tok_embeddings.weight)
